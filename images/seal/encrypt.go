package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
)

const (
	recipientAdvice = "name a recipient of age's (age1...), or a file of such lines"
	identityAdvice  = "name a file that age-keygen wrote"
	// maxKeys bounds a file of keys.
	maxKeys = 1 << 20
)

// Recipient and Identity are age's.
type (
	Recipient = age.Recipient
	Identity  = age.Identity
)

// Recipients are those who can read what is encrypted to them: each word is a
// public key, or the file of some.
func Recipients(words ...string) ([]Recipient, error) {
	var all []Recipient
	for _, w := range words {
		if strings.HasPrefix(w, "age1") {
			r, err := recipient(w)
			if err != nil {
				return nil, badKey(fmt.Sprintf("recipient %q: %v", w, err), recipientAdvice)
			}
			all = append(all, r)
			continue
		}
		some, err := recipientFile(w)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func recipient(line string) (age.Recipient, error) {
	all, err := age.ParseRecipients(strings.NewReader(line))
	if err != nil {
		return nil, errors.New("is no key of age's")
	}
	return all[0], nil
}

func recipientFile(file string) (all []Recipient, err error) {
	err = lines(file, recipientAdvice, func(line string) error {
		r, err := recipient(line)
		all = append(all, r)
		return err
	})
	return all, err
}

// lines reads a file of public keys.
func lines(file, advice string, take func(line string) error) error {
	data, err := readKey(file, advice)
	if err != nil {
		return err
	}
	n, taken := 0, 0
	for line := range strings.Lines(string(data)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := take(line); err != nil {
			// Not the line itself: it may be a secret.
			return badKey(fmt.Sprintf("key file %s, line %d: %v", file, n, err), advice)
		}
		taken++
	}
	if taken == 0 {
		return badKey(fmt.Sprintf("key file %s: holds no key", file), advice)
	}
	return nil
}

func readKey(file, advice string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, badKey("key: "+err.Error(), advice)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(data) > maxKeys {
		err = errors.New("is too big")
	}
	if err != nil {
		return nil, badKey(fmt.Sprintf("key file %s: %v", file, err), advice)
	}
	return data, nil
}

// Identities open what was encrypted to them.
func Identities(files ...string) ([]Identity, error) {
	var all []Identity
	for _, file := range files {
		data, err := readKey(file, identityAdvice)
		if err != nil {
			return nil, err
		}
		some, err := age.ParseIdentities(bytes.NewReader(data))
		if err != nil { // which may quote a secret
			return nil, badKey(fmt.Sprintf("key file %s: holds no key of age's", file), identityAdvice)
		}
		all = append(all, some...)
	}
	return all, nil
}

// Encrypt encrypts what is written to it, until it is closed.
func Encrypt(w io.Writer, to []Recipient) (io.WriteCloser, error) {
	out, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// magic is how an encrypted file begins.
const magic = "age-encryption.org/"

// Decrypt reads what may be encrypted, and then needs an identity.
func Decrypt(r io.Reader, me []Identity) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	head, err := b.Peek(len(magic))
	if err != nil && err != io.EOF {
		return nil, err
	}
	if string(head) != magic {
		return b, nil
	}
	if len(me) == 0 {
		return nil, &Error{Text: "it is encrypted", Advice: "name the key that opens it with --identity"}
	}
	plain, err := age.Decrypt(b, me...)
	var nobody *age.NoIdentityMatchError
	switch {
	case errors.As(err, &nobody):
		return nil, &Error{Text: "it is encrypted to somebody else", Advice: "name the key that it was encrypted to with --identity"}
	case err != nil:
		return nil, &Error{Text: fmt.Sprintf("it is encrypted, and cannot be opened: %v", err), Advice: "was it copied whole?"}
	}
	return decrypted{plain}, nil
}

// decrypted says what it means when a part is not what was encrypted.
type decrypted struct{ r io.Reader }

func (d decrypted) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	switch {
	case err == nil || err == io.EOF:
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = &Error{Text: "it is encrypted, and ends in the middle", Advice: "it was not copied whole: copy it again"}
	case strings.HasPrefix(err.Error(), "failed to decrypt"): // of age's STREAM
		err = &Error{Text: "it is encrypted, and has been changed since", Advice: "copy it again, from somebody you trust"}
	}
	return n, err
}
