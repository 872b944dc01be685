package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/mount"
	"crucible/container/safepath"
)

// stdio is the monitor's end of a container's standard streams: FIFOs, or the
// master of a terminal. For each FIFO that is read it also holds a writing
// end, so that the container may close and open its output as it likes; when
// that one is closed and the container is gone, end-of-file comes.
type stdio struct {
	input   *os.File   // FIFO to write to; nil without input
	outputs []*os.File // FIFOs to read from: stdout, stderr
	keepers []*os.File
	master  *os.File // terminal; nil without one

	log  *logWriter
	mu   sync.Mutex
	taps map[*tap]struct{} // who else gets the output
	pump sync.WaitGroup
}

// tap receives a copy of the output. It must not block for long.
type tap struct {
	write func(stream int, data []byte) error
}

func newStdio(log string) *stdio {
	return &stdio{taps: map[*tap]struct{}{}, log: &logWriter{path: log}}
}

// openStdio opens the FIFOs in the calling thread's view of the container's
// /dev, which is below root: an image may have a link in its place.
func (m *Monitor) openStdio(root *os.File) error {
	s := newStdio(m.c.Log())
	if m.tap != nil {
		s.addTap(m.tap)
	}
	m.stdio = s
	if m.spec.Process.Terminal {
		return nil
	}
	dev := strings.TrimPrefix(m.places["/dev"], root.Name())
	dir, err := safepath.Open(root, dev+strings.TrimPrefix(mount.StdioDir, "/dev"))
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{"stdout", "stderr"} {
		r, err := openFIFO(dir, name, unix.O_RDONLY)
		if err != nil {
			return err
		}
		s.outputs = append(s.outputs, r)
		w, err := openFIFO(dir, name, unix.O_WRONLY)
		if err != nil {
			return err
		}
		s.keepers = append(s.keepers, w)
	}
	if m.output.Input {
		// Reading and writing, for there is no reader yet.
		w, err := openFIFO(dir, "stdin", unix.O_RDWR)
		if err != nil {
			return err
		}
		s.input = w
	}
	return nil
}

func openFIFO(dir *os.File, name string, flag int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), name, flag|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		f.Close()
		return nil, fmt.Errorf("open %s: is not a FIFO", path)
	}
	return f, nil
}

// run copies the output until its end.
func (s *stdio) run() {
	sources := s.outputs
	if s.master != nil {
		sources = []*os.File{s.master}
	}
	for i, f := range sources {
		s.pump.Add(1)
		go func() {
			defer s.pump.Done()
			s.copy(i+1, f)
		}()
	}
}

func (s *stdio) copy(stream int, f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			s.deliver(stream, buf[:n])
		}
		// A terminal without anybody at its other end answers EIO
		// (drivers/tty/n_tty.c); that is its end-of-file.
		if err != nil {
			return
		}
	}
}

func (s *stdio) deliver(stream int, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.write(stream, data)
	for t := range s.taps {
		if t.write(stream, data) != nil {
			delete(s.taps, t)
		}
	}
}

func (s *stdio) addTap(t *tap) {
	s.mu.Lock()
	s.taps[t] = struct{}{}
	s.mu.Unlock()
}

func (s *stdio) removeTap(t *tap) {
	s.mu.Lock()
	delete(s.taps, t)
	s.mu.Unlock()
}

// writer is where input for the container goes.
func (s *stdio) writer() (*os.File, error) {
	switch {
	case s.master != nil:
		return s.master, nil
	case s.input != nil:
		return s.input, nil
	}
	return nil, errors.New("the container's standard input is not open (run it with -i)")
}

// closeInput makes the container see the end of its input. Whoever opens the
// FIFO again later waits for a writer, as with any FIFO.
func (s *stdio) closeInput() {
	if s.input != nil {
		s.input.Close()
		s.input = nil
	}
}

// drain waits until all that the container wrote has been copied. The
// container is gone by then; the limit is for a stream that a program outside
// holds open.
func (s *stdio) drain() {
	for _, k := range s.keepers {
		k.Close()
	}
	s.keepers = nil
	done := make(chan struct{})
	go func() { s.pump.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		for _, f := range s.outputs {
			_ = f.SetReadDeadline(time.Now())
		}
		if s.master != nil {
			_ = s.master.SetReadDeadline(time.Now())
		}
		<-done
	}
	s.log.flush()
}

func (s *stdio) close() {
	if s == nil {
		return
	}
	files := append(append([]*os.File{s.input, s.master}, s.outputs...), s.keepers...)
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
	if s.log.file != nil {
		s.log.file.Close()
	}
}

// OutputError says that the output of a container, or of a program in it, could
// not be written where the command's own output goes.
type OutputError struct {
	Stream string
	Err    error
}

func (e *OutputError) Error() string { return "write " + e.Stream + ": " + cause(e.Err).Error() }
func (e *OutputError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *OutputError) Hint() string {
	return "make room there; what the container itself wrote is in its log too, as long as it is kept (without --rm)"
}

// fileTap copies output to the files of a command in the foreground. Where
// nobody reads it any more, the container is ended, as SIGPIPE would end a
// program without us: what its output is lost with would go on unattended.
func (m *Monitor) fileTap(stdout, stderr *os.File) *tap {
	return &tap{write: func(stream int, data []byte) error {
		w, name := stdout, "standard output"
		if stream == 2 {
			w, name = stderr, "standard error"
		}
		_, err := w.Write(data)
		switch {
		case errors.Is(err, unix.EPIPE):
			m.Signal(unix.SIGKILL)
		case err != nil:
			m.lost = &OutputError{Stream: name, Err: err}
		}
		return err
	}}
}
