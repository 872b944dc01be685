package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"strings"
)

// keyType is what SSH calls an Ed25519 key (RFC 8709).
const keyType = "ssh-ed25519"

// wire is bytes as SSH writes them (RFC 4251, 5): numbers are big-endian, and
// texts come behind their length.
type wire []byte

func (w *wire) number(n uint32) { *w = binary.BigEndian.AppendUint32(*w, n) }
func (w *wire) text(s string)   { w.number(uint32(len(s))); *w = append(*w, s...) }

// reader reads them. It is short once something was not there.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || n > len(r.rest) {
		r.short = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) text() []byte {
	n := r.number()
	if uint64(n) > uint64(len(r.rest)) {
		r.short = true
		return nil
	}
	return r.take(int(n))
}

// publicBlob is a public key (RFC 8709, 4).
func publicBlob(key ed25519.PublicKey) []byte {
	var w wire
	w.text(keyType)
	w.text(string(key))
	return w
}

func publicFromBlob(b []byte) (ed25519.PublicKey, error) {
	r := reader{rest: b}
	kind, key := r.text(), r.text()
	if r.short || len(r.rest) > 0 || string(kind) != keyType || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("is no Ed25519 public key")
	}
	return key, nil
}

// publicKey reads a line that has one, with options or names before it and a
// comment behind.
func publicKey(line string) (ed25519.PublicKey, error) {
	words := strings.Fields(line)
	for n, w := range words[:max(0, len(words)-1)] {
		if w == keyType {
			b, err := base64.StdEncoding.DecodeString(words[n+1])
			if err != nil {
				break
			}
			return publicFromBlob(b)
		}
	}
	return nil, errors.New("is no Ed25519 public key of SSH's")
}

// fingerprint names a key as `ssh-keygen -l` does.
func fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(publicBlob(key))
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// errLocked: the key has a passphrase.
var errLocked = errors.New("has a passphrase")

// privateKey reads a file of OpenSSH's (its PROTOCOL.key).
func privateKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	const magic = "openssh-key-v1\x00"
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" || !bytes.HasPrefix(block.Bytes, []byte(magic)) {
		return nil, errors.New("is no private key of OpenSSH's")
	}
	r := reader{rest: block.Bytes[len(magic):]}
	cipher := r.text()
	_, _ = r.text(), r.text() // how the cipher's key is made
	count, public := r.number(), reader{rest: r.text()}
	section := reader{rest: r.text()}
	kind := string(public.text())
	switch {
	case r.short || public.short || count != 1:
		return nil, errors.New("cannot be read")
	case kind != keyType:
		return nil, errors.New("is no Ed25519 key")
	case string(cipher) != "none":
		return nil, errLocked
	}
	one, two := section.number(), section.number()
	_, _ = section.text(), section.text() // type, public key
	private := ed25519.PrivateKey(section.text())
	if section.short || one != two || len(private) != ed25519.PrivateKeySize {
		return nil, errors.New("cannot be read")
	}
	// The second half is the public key, which a signature depends on.
	if !bytes.Equal(ed25519.NewKeyFromSeed(private.Seed()), private) {
		return nil, errors.New("is damaged")
	}
	return private, nil
}
