package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
)

// Namespace keeps a signature of ours from being taken for one of something else.
const Namespace = "crucible-image"

// The words of a signature: PROTOCOL.sshsig of OpenSSH.
const (
	sigMagic   = "SSHSIG"
	sigVersion = 1
	sigHash    = "sha512"
	sigPEM     = "SSH SIGNATURE"
)

const (
	signAdvice  = "name an Ed25519 private key of OpenSSH's: `ssh-keygen -t ed25519` makes one"
	trustAdvice = "name a file of SSH public keys (ssh-ed25519 ...), or of ssh-keygen's allowed signers"
)

// Key signs.
type Key struct {
	private ed25519.PrivateKey
	file    string // without one: ssh-keygen signs with this
}

// SigningKey reads a private key.
func SigningKey(file string) (*Key, error) {
	data, err := readKey(file, signAdvice)
	if err != nil {
		return nil, err
	}
	private, err := privateKey(data)
	if _, notPublic := publicKey(string(data)); errors.Is(err, errLocked) || notPublic == nil {
		return &Key{file: file}, nil
	}
	if err != nil {
		return nil, badKey(fmt.Sprintf("key file %s: %v", file, err), signAdvice)
	}
	return &Key{private: private}, nil
}

// Sign returns a signature of a message, as text.
func (k *Key) Sign(message []byte) ([]byte, error) {
	if k.private == nil {
		return k.signElsewhere(message)
	}
	var sig, blob wire
	sig.text(keyType)
	sig.text(string(ed25519.Sign(k.private, signed(message))))
	blob = append(blob, sigMagic...)
	blob.number(sigVersion)
	blob.text(string(publicBlob(k.private.Public().(ed25519.PublicKey))))
	blob.text(Namespace)
	blob.text("") // reserved
	blob.text(sigHash)
	blob.text(string(sig))
	return pem.EncodeToMemory(&pem.Block{Type: sigPEM, Bytes: blob}), nil
}

// signElsewhere has ssh-keygen sign, which can ask for a passphrase, or an agent
// that has the key.
func (k *Key) signElsewhere(message []byte) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", Namespace, "-f", k.file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &out, &said
	if err := cmd.Run(); err != nil {
		return nil, badKey(fmt.Sprintf("key file %s: ssh-keygen cannot sign with it: %v: %s", k.file, err, bytes.TrimSpace(said.Bytes())),
			"was the passphrase right, is there a terminal to type it on, or an agent that has the key?")
	}
	return out.Bytes(), nil
}

// signed is what is really signed.
func signed(message []byte) []byte {
	sum := sha512.Sum512(message)
	w := wire(sigMagic)
	w.text(Namespace)
	w.text("")
	w.text(sigHash)
	w.text(string(sum[:]))
	return w
}

// Trusted are the public keys that are believed.
type Trusted []ed25519.PublicKey

// TrustedKeys reads files of public keys: those of ~/.ssh/*.pub, of
// authorized_keys(5), and of ssh-keygen(1)'s allowed signers.
func TrustedKeys(files ...string) (Trusted, error) {
	var all Trusted
	for _, file := range files {
		err := lines(file, trustAdvice, func(line string) error {
			key, err := publicKey(line)
			all = append(all, key)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Check says whether somebody who is trusted signed the message. An empty
// signature is none.
func (t Trusted) Check(message, signature []byte) error {
	if len(signature) == 0 {
		return &Error{Text: "it is not signed", Advice: "get one that is, or leave out --verify-key if you trust where it comes from"}
	}
	by, sig, err := openSignature(signature)
	if err != nil {
		return &Error{Text: "its signature " + err.Error(), Advice: "do not use it: get it again, from somebody you trust"}
	}
	for _, key := range t {
		if !key.Equal(by) {
			continue
		}
		if !ed25519.Verify(key, signed(message), sig) {
			return &Error{Text: "its signature is of something else: it has been changed", Advice: "do not use it: get it again, from somebody you trust"}
		}
		return nil
	}
	return &Error{Text: "it is signed by " + fingerprint(by) + ", which is not trusted", Advice: "if you trust that key, name it with --verify-key"}
}

// openSignature reads who signed, and the signature itself.
func openSignature(text []byte) (by ed25519.PublicKey, sig []byte, err error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != sigPEM || !bytes.HasPrefix(block.Bytes, []byte(sigMagic)) {
		return nil, nil, errors.New("cannot be read")
	}
	r := reader{rest: block.Bytes[len(sigMagic):]}
	version, key, namespace := r.number(), r.text(), r.text()
	_, hash, inner := r.text(), r.text(), reader{rest: r.text()}
	kind, sig := inner.text(), inner.text()
	by, err = publicFromBlob(key)
	switch {
	case r.short || inner.short || len(r.rest)+len(inner.rest) > 0:
		return nil, nil, errors.New("cannot be read")
	case string(namespace) != Namespace:
		return nil, nil, fmt.Errorf("is for %q, not for %q", namespace, Namespace)
	case err != nil, version != sigVersion, string(hash) != sigHash, string(kind) != keyType:
		return nil, nil, errors.New("is of a kind that is not read here: only Ed25519 with " + sigHash)
	}
	return by, sig, nil
}
