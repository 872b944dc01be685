package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"crucible/container/testenv"
)

// ageKey makes a pair of keys: the file of the private one, and the public one.
func ageKey(t testing.TB) (file, public string) {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.txt")
	write(t, file, "# a key\n"+i.String()+"\n")
	return file, i.Recipient().String()
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	return path
}

// sshKey makes a pair of files, NAME and NAME.pub.
func sshKey(t testing.TB, passphrase string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "id_ed25519")
	args := append([]string{"-q", "-t", "ed25519", "-N", passphrase, "-C", "me at home", "-f", file}, more...)
	if out, err := exec.Command(program(t, "ssh-keygen"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

func encrypted(t testing.TB, message string, words ...string) []byte {
	t.Helper()
	to, err := Recipients(words...)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := Encrypt(&b, to)
	if err == nil {
		_, err = io.WriteString(w, message)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decrypt(b []byte, me []Identity) (string, error) {
	r, err := Decrypt(bytes.NewReader(b), me)
	if err != nil {
		return "", err
	}
	plain, err := io.ReadAll(r)
	return string(plain), err
}

func TestEncrypt(t *testing.T) {
	mine, to := ageKey(t)
	theirs, other := ageKey(t)
	list := filepath.Join(t.TempDir(), "list")
	write(t, list, "# both\n"+to+"\n\n"+other+"\n")
	message := strings.Repeat("secret ", 30_000)
	for _, words := range [][]string{{to}, {other, to}, {list}} {
		me, err := Identities(mine)
		if err != nil {
			t.Fatal(err)
		}
		b := encrypted(t, message, words...)
		if bytes.Contains(b, []byte("secret secret")) {
			t.Error("can be read")
		}
		if plain, err := decrypt(b, me); err != nil || plain != message {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
	}
	me, err := Identities(theirs)
	if err != nil {
		t.Fatal(err)
	}
	b := encrypted(t, message, to)
	for what, c := range map[string]struct {
		b    []byte
		me   []Identity
		want string
	}{
		"no key":          {b, nil, "it is encrypted"},
		"somebody else's": {b, me, "it is encrypted to somebody else"},
		"cut in its head": {b[:100], me, "cannot be opened"},
	} {
		_, err := decrypt(c.b, c.me)
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, c.want) || bad.Advice == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if plain, err := decrypt([]byte("plain"), nil); err != nil || plain != "plain" {
		t.Errorf("%q, %v", plain, err)
	}
}

// Whatever is changed or cut in an encrypted file is noticed.
func TestEncryptedDamaged(t *testing.T) {
	file, to := ageKey(t)
	me, err := Identities(file)
	if err != nil {
		t.Fatal(err)
	}
	b := encrypted(t, strings.Repeat("x", 200_000), to)
	for at := 0; at < len(b); at += 1999 {
		var bad *Error
		flipped := bytes.Clone(b)
		flipped[at] ^= 1
		if _, err := decrypt(flipped, me); at >= len(magic) && !errors.As(err, &bad) {
			t.Errorf("byte %d flipped: %v", at, err)
		}
		if _, err := decrypt(b[:at], me); at >= len(magic) && !errors.As(err, &bad) {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
}

// age(1) opens what we close, and the other way.
func TestEncryptWithAge(t *testing.T) {
	ageProgram := program(t, "age")
	file, to := ageKey(t)
	c := exec.Command(ageProgram, "-d", "-i", file)
	c.Stdin = bytes.NewReader(encrypted(t, "to age", to))
	if out, err := c.Output(); err != nil || string(out) != "to age" {
		t.Errorf("%q, %v", out, err)
	}
	c = exec.Command(ageProgram, "-r", to)
	c.Stdin = strings.NewReader("from age")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	me, err := Identities(file)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := decrypt(out, me); err != nil || plain != "from age" {
		t.Errorf("%q, %v", plain, err)
	}
}

func signature(t testing.TB, file, message string) []byte {
	t.Helper()
	key, err := SigningKey(file)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.Sign([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func trusted(t testing.TB, files ...string) Trusted {
	t.Helper()
	all, err := TrustedKeys(files...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSign(t *testing.T) {
	mine, theirs := sshKey(t, ""), sshKey(t, "")
	sig := signature(t, mine, "message")
	allowed := filepath.Join(t.TempDir(), "allowed")
	public, err := os.ReadFile(mine + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, allowed, "# these\nme@example.org,you@example.org namespaces=\"crucible-image\" "+string(public))
	for _, files := range [][]string{{mine + ".pub"}, {theirs + ".pub", mine + ".pub"}, {allowed}} {
		if err := trusted(t, files...).Check([]byte("message"), sig); err != nil {
			t.Error(err)
		}
	}
	other := signature(t, mine, "another")
	for what, c := range map[string]struct {
		by, message string
		sig         []byte
		want        string
	}{
		"unsigned":        {mine, "message", nil, "it is not signed"},
		"of another":      {mine, "message", other, "is of something else"},
		"by another":      {theirs, "message", sig, "which is not trusted"},
		"no signature":    {mine, "message", []byte("hello"), "cannot be read"},
		"for another use": {mine, "message", bySSH(t, mine, "file", "message"), `is for "file"`},
	} {
		err := trusted(t, c.by+".pub").Check([]byte(c.message), c.sig)
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, c.want) || bad.Advice == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Any character of it.
	for n := range sig {
		b := bytes.Clone(sig)
		if b[n]++; bytes.Equal(bytes.TrimSpace(b), bytes.TrimSpace(sig)) || b[n] == '\n' || sig[n] == '\n' {
			continue
		}
		if err := trusted(t, mine+".pub").Check([]byte("message"), b); err == nil && n < bytes.IndexByte(sig, '=')-1 { // its last bits are none
			t.Errorf("character %d changed, and it is good", n)
		}
	}
}

// bySSH has ssh-keygen sign.
func bySSH(t testing.TB, file, namespace, message string) []byte {
	t.Helper()
	c := exec.Command(program(t, "ssh-keygen"), "-q", "-Y", "sign", "-n", namespace, "-f", file)
	c.Stdin = strings.NewReader(message)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ssh-keygen believes our signatures, and we its.
func TestSignWithSSH(t *testing.T) {
	file := sshKey(t, "")
	if err := trusted(t, file+".pub").Check([]byte("message"), bySSH(t, file, Namespace, "message")); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/allowed", "me "+string(public))
	write(t, dir+"/sig", string(signature(t, file, "message")))
	for message, good := range map[string]bool{"message": true, "massage": false} {
		c := exec.Command(program(t, "ssh-keygen"), "-Y", "verify", "-n", Namespace, "-f", dir+"/allowed", "-I", "me", "-s", dir+"/sig")
		c.Stdin = strings.NewReader(message)
		if out, err := c.CombinedOutput(); (err == nil) != good {
			t.Errorf("%s: %v: %s", message, err, out)
		}
	}
	out, err := exec.Command(program(t, "ssh-keygen"), "-l", "-f", file+".pub").Output()
	if print := fingerprint(trusted(t, file+".pub")[0]); err != nil || !strings.Contains(string(out), print+" ") {
		t.Errorf("%s is not in %s, %v", print, out, err)
	}
}

// A key with a passphrase is ssh-keygen's to open.
func TestSignLocked(t *testing.T) {
	file := sshKey(t, "open sesame")
	ask := filepath.Join(t.TempDir(), "ask")
	write(t, ask, "#!/bin/sh\necho open sesame\n")
	if err := os.Chmod(ask, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_ASKPASS", ask)
	t.Setenv("SSH_ASKPASS_REQUIRE", "force")
	if err := trusted(t, file+".pub").Check([]byte("message"), signature(t, file, "message")); err != nil {
		t.Error(err)
	}
	write(t, ask, "#!/bin/sh\necho wrong\n")
	key, err := SigningKey(file)
	if err != nil {
		t.Fatal(err)
	}
	var bad *Error
	if _, err := key.Sign(nil); !errors.As(err, &bad) || !bad.Key {
		t.Errorf("%v", err)
	}
}

// What is no key says so, without showing what it is.
func TestBadKeys(t *testing.T) {
	dir := t.TempDir()
	secret, _ := ageKey(t)
	rsa := sshKey(t, "", "-t", "rsa")
	write(t, dir+"/text", "hello\n")
	write(t, dir+"/empty", "")
	write(t, dir+"/big", strings.Repeat("#\n", maxKeys))
	broken, err := os.ReadFile(sshKey(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/cut", string(broken[:len(broken)/2])+"\n-----END OPENSSH PRIVATE KEY-----\n")
	for n, f := range []func() error{
		func() error { _, err := Recipients("age1nonsense"); return err },
		func() error { _, err := Recipients(dir + "/text"); return err },
		func() error { _, err := Recipients(dir + "/empty"); return err },
		func() error { _, err := Recipients(secret); return err },
		func() error { _, err := Identities(dir + "/nosuch"); return err },
		func() error { _, err := Identities(dir + "/text"); return err },
		func() error { _, err := Identities(dir); return err },
		func() error { _, err := SigningKey(dir + "/text"); return err },
		func() error { _, err := SigningKey(dir + "/cut"); return err },
		func() error { _, err := SigningKey(rsa); return err },
		func() error { _, err := SigningKey(dir + "/big"); return err },
		func() error { _, err := TrustedKeys(dir + "/text"); return err },
		func() error { _, err := TrustedKeys(rsa + ".pub"); return err },
		func() error { _, err := TrustedKeys(dir + "/empty"); return err },
	} {
		err := f()
		var bad *Error
		if !errors.As(err, &bad) || !bad.Key || bad.Advice == "" || strings.Contains(fmt.Sprint(err), "SECRET") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func FuzzSignature(f *testing.F) {
	file := sshKey(f, "")
	f.Add(signature(f, file, "message"))
	t := trusted(f, file+".pub")
	f.Fuzz(func(_ *testing.T, b []byte) { _ = t.Check([]byte("another message"), b) })
}

func FuzzPrivateKey(f *testing.F) {
	for _, phrase := range []string{"", "x"} {
		data, err := os.ReadFile(sshKey(f, phrase))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := privateKey(b); err == nil {
			_, _ = (&Key{private: key}).Sign(nil)
		}
		_, _ = publicKey(string(b))
	})
}
