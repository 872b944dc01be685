package workload

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a program waits for what must come.
const patience = 10 * time.Second

// unchanged is the check that a text, looked at once before and once after the
// restore, is the same.
func unchanged(look func() (string, error)) (check func() error, err error) {
	before, err := look()
	if err != nil {
		return nil, err
	}
	return func() error {
		after, err := look()
		if err != nil {
			return err
		}
		return sameLines(before, after)
	}, nil
}

// sameLines names the first line that is not as before.
func sameLines(before, after string) error {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range max(len(old), len(now)) {
		switch {
		case i >= len(now):
			return fmt.Errorf("%q is missing", old[i])
		case i >= len(old):
			return fmt.Errorf("%q is new", now[i])
		case old[i] != now[i]:
			return fmt.Errorf("%q, before %q", now[i], old[i])
		}
	}
	return nil
}

// same compares a value after the restore with the one that it must have.
func same(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	if g, ok := got.([]byte); ok {
		w := want.([]byte)
		at := 0
		for at < min(len(g), len(w)) && g[at] == w[at] {
			at++
		}
		return fmt.Errorf("%s: %d bytes, want %d, alike up to byte %d", what, len(g), len(w), at)
	}
	return fmt.Errorf("%s: %v, want %v", what, got, want)
}

// first is the first error there is. What stands in the call has all been done
// by then, after an error too.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// pattern is n bytes that differ from place to place, and by their seed.
func pattern(n int, seed uint32) []byte {
	b := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// readable waits until something can be read from a descriptor.
func readable(fd int) error { return await(fd, unix.POLLIN) }

func await(fd int, events int16) error {
	deadline := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(time.Until(deadline).Milliseconds()))
		switch {
		case err == unix.EINTR && time.Now().Before(deadline):
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n == 0:
			return fmt.Errorf("nothing came in %v", patience)
		default:
			return nil
		}
	}
}

// receive reads n bytes, and waits for them.
func receive(fd, n int) ([]byte, error) {
	b := make([]byte, 0, n)
	for len(b) < n {
		if err := readable(fd); err != nil {
			return b, fmt.Errorf("%w after %d of %d bytes", err, len(b), n)
		}
		got, err := unix.Read(fd, b[len(b):n])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return b, fmt.Errorf("read: %w", err)
		case got == 0:
			return b, fmt.Errorf("end of file after %d of %d bytes", len(b), n)
		default:
			b = b[:len(b)+got]
		}
	}
	return b, nil
}

// mustReceive is receive for bytes that are known.
func mustReceive(what string, fd int, want []byte) error {
	got, err := receive(fd, len(want))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return same(what, got, want)
}

// send writes all of b.
func send(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b = b[n:]
	}
	return nil
}
