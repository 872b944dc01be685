package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"crucible/container/safepath"
	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

// helpVictim is the process that enters the container: it runs our executable.
func helpVictim(string) error {
	fmt.Println("running")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// helpHostile is root in the container: it takes hold of the victim's
// executable while it runs, and writes to it when it does not run any more
// (before, the kernel itself says ETXTBSY).
func helpHostile(input string) error {
	var victim int
	if err := json.Unmarshal([]byte(input), &victim); err != nil {
		return err
	}
	exe, err := os.OpenFile(fmt.Sprintf("/proc/%d/exe", victim), unix.O_PATH, 0)
	if err != nil {
		return err
	}
	fmt.Println("holding")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	f, err := os.OpenFile(safepath.Path(exe), unix.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	// A memory file can be opened, and then refuses.
	if _, err := f.WriteAt([]byte{0}, 0); err == nil {
		return errors.New("overwritten")
	}
	if err := f.Truncate(0); err == nil {
		return errors.New("truncated")
	}
	return nil
}

// CVE-2019-5736, once with a plain executable, which shows that the attack
// works, and with each of our forms of it.
func TestSealedExecutable(t *testing.T) {
	testenv.Root(t)
	for name, tc := range map[string]struct {
		open func() (*os.File, error)
		err  string // of the hostile program
	}{
		"plain":   {open: func() (*os.File, error) { return plainCopy(t) }, err: "overwritten"},
		"overlay": {open: sealedOverlay},
		"copy":    {open: sealedCopy},
		"either":  {open: SealedSelf},
	} {
		t.Run(name, func(t *testing.T) {
			exe, err := tc.open()
			if err != nil {
				t.Fatal(err)
			}
			defer exe.Close()
			victim := help(t, "victim", nil, 0)
			victim.Path = safepath.Path(exe)
			endVictim := start(t, victim.StdinPipe, victim.StdoutPipe, victim.Start, "running")
			hostile := help(t, "hostile", victim.Process.Pid, 0)
			var errs strings.Builder
			hostile.Stderr = &errs
			endHostile := start(t, hostile.StdinPipe, hostile.StdoutPipe, hostile.Start, "holding")
			endVictim()
			if err := victim.Wait(); err != nil {
				t.Fatal("victim: ", err)
			}
			endHostile()
			err = hostile.Wait()
			if err != nil {
				err = errors.New(errs.String())
			}
			wantError(t, err, tc.err)
		})
	}
}

// start starts a child and waits for its first line.
func start(t *testing.T, stdin func() (io.WriteCloser, error), stdout func() (io.ReadCloser, error), start func() error, line string) (end func()) {
	t.Helper()
	in, err := stdin()
	if err != nil {
		t.Fatal(err)
	}
	out, err := stdout()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(line)+1)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != line+"\n" {
		t.Fatalf("child said %q, %v", buf, err)
	}
	return func() { in.Close() }
}

func plainCopy(t *testing.T) (*os.File, error) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	name := t.TempDir() + "/exe"
	if err := os.WriteFile(name, data, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(name, unix.O_PATH, 0)
}

func BenchmarkSealedOverlay(b *testing.B) { benchmarkSeal(b, sealedOverlay) }
func BenchmarkSealedCopy(b *testing.B)    { benchmarkSeal(b, sealedCopy) }

func benchmarkSeal(b *testing.B, seal func() (*os.File, error)) {
	testenv.Root(b)
	for b.Loop() {
		f, err := seal()
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkOpenProc(b *testing.B) {
	testenv.Root(b)
	for b.Loop() {
		p, err := OpenProc()
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
