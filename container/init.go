package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/confine"
	"crucible/container/mount"
)

// initName is argument 0 of a process that is on its way to become a
// container's program: the container's init, or a program that exec starts.
const initName = "crucible-init"

// initSocket is the descriptor on which such a process gets its initConfig and
// answers. It is closed by the execve(2) that ends its work.
const initSocket = 3

// maxConfig, which is also the longest message, bounds an initConfig: a message that one send can take (net.core.wmem_default is 208 KiB).
const maxConfig = 200 << 10

// Messages on the init's socket. The parent's first message is the initConfig;
// end-of-file in the parent means that the program was started.
const (
	sayTerminal = 'T' // init: here is the terminal's master (a descriptor comes along)
	sayReady    = 'R' // init: all is set up, waiting for sayGo
	sayError    = 'E' // init: failed; the rest of the message is an initError
	sayGo       = 'G' // parent: start the program
)

// initConfig is all that the container's init needs to know. It is small on
// purpose: every start pays for its decoding.
type initConfig struct {
	Root        string            `json:"root,omitempty"` // empty: exec, the namespaces exist already
	Namespaces  namespaces        `json:"namespaces"`
	Hostname    string            `json:"hostname,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	Mounts      []mount.Mount     `json:"mounts,omitempty"` // those that only the inside can make
	Masked      []string          `json:"masked,omitempty"`
	ReadOnly    []string          `json:"readOnly,omitempty"`
	Empty       string            `json:"empty,omitempty"` // a read-only empty directory, to mask directories with
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	TimeOffsets string            `json:"timeOffsets,omitempty"` // as /proc/self/timens_offsets takes them
	Process     *specs.Process    `json:"process"`
	Seccomp     *confine.Filter   `json:"seccomp,omitempty"`
	Input       bool              `json:"input,omitempty"` // standard input is a FIFO, not /dev/null
	Wait        bool              `json:"wait,omitempty"`  // for sayGo before the program starts
	Tasks       bool              `json:"tasks,omitempty"` // the last descriptor that comes along is inside.tasks
}

// InitError is why a container's program could not be started.
type InitError struct {
	Step  string      `json:"step"`
	Text  string      `json:"text"`
	Errno unix.Errno  `json:"errno,omitempty"`
	Kind  InitFailure `json:"kind,omitempty"`
	Hint  string      `json:"hint,omitempty"`
}

// InitFailure tells the failures apart that have an exit code of their own.
type InitFailure string

const (
	SetupFailed   InitFailure = ""         // a step before the program
	NotFound      InitFailure = "notfound" // there is no such program in the container
	NotExecutable InitFailure = "notexec"  // it is there and cannot be executed
	Ended         InitFailure = "ended"    // the init ended without an execve and without a word
)

// exitCode is that of env(1) and the shells, for a container that was created
// and whose program then could not be started.
func (e *InitError) exitCode() int {
	switch e.Kind {
	case NotFound:
		return 127
	case NotExecutable:
		return 126
	}
	return 125
}

func (e *InitError) Error() string { return e.Step + ": " + e.Text }
func (e *InitError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// MaybeInit becomes the container's init if this process was started as one,
// and then never returns. It must be the first line of main.
func MaybeInit() {
	if len(os.Args) == 0 || os.Args[0] != initName {
		return
	}
	runtime.LockOSThread()
	nameSelf()
	in := inside{socket: initSocket}
	err := in.run()
	// Only a failure comes here: otherwise the process has become the program.
	failure := &InitError{Step: "start", Text: err.Error()}
	errors.As(err, &failure)
	text, _ := json.Marshal(failure)
	_, _ = unix.Write(in.socket, append([]byte{sayError}, text...))
	os.Exit(failure.exitCode())
}

// nameSelf gives the init a name that its program will not have: see endedEarly.
func nameSelf() {
	name := append([]byte(initName), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

// inside is the init's own side of a start.
type inside struct {
	socket int
	config initConfig
	root   *os.File // the container's root directory, before the pivot
	net    *os.File // the container's network namespace, if it is to be entered
	tasks  *os.File // the file by which a thread enters the cgroup that counts tasks, see cgroup.SplitTasks
}

func (in *inside) run() error {
	unix.CloseOnExec(in.socket)
	message, files, err := receive(in.socket)
	if err == nil {
		err = json.Unmarshal(message, &in.config)
	}
	if err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	if n := len(files); in.config.Tasks && n > 0 {
		in.tasks, files = files[n-1], files[:n-1]
	}
	if len(files) > 0 {
		in.net = files[0]
	}
	for _, s := range insidePlan(&in.config) {
		if err := s.apply(in); err != nil {
			failure := &InitError{}
			if errors.As(err, &failure) {
				return failure
			}
			failure = &InitError{Step: s.Show, Text: err.Error()}
			errors.As(err, &failure.Errno)
			return failure
		}
	}
	return nil
}

// enterTasks enters the cgroup that counts tasks, with this thread alone. The
// others, which our runtime needed, end with the execve and were never counted.
func (in *inside) enterTasks() error {
	if in.tasks == nil {
		return errors.New("it did not come with the configuration")
	}
	defer in.tasks.Close()
	_, err := unix.Write(int(in.tasks.Fd()), []byte("0"))
	return err
}

// waitForGo tells the parent that all is set up and blocks until it says go.
func (in *inside) waitForGo() error {
	if _, err := unix.Write(in.socket, []byte{sayReady}); err != nil {
		return err
	}
	var b [1]byte
	n, err := retry(func() (int, error) { return unix.Read(in.socket, b[:]) })
	if err != nil {
		return err
	}
	if n == 0 || b[0] != sayGo {
		return errors.New("the monitor is gone")
	}
	return nil
}

// exec replaces the process by the container's program.
func (in *inside) exec() error {
	p := in.config.Process
	path, err := lookPath(p.Args[0], p.Env)
	if err != nil {
		return err
	}
	err = in.identity().Exec(path, p.Args, p.Env)
	failure := &InitError{Step: "execute " + path, Text: err.Error(), Kind: NotExecutable}
	if errors.As(err, &failure.Errno) {
		failure.Text = failure.Errno.Error()
	}
	if errors.Is(err, unix.ENOENT) {
		failure.Text = "its interpreter (the #! line, or the dynamic linker) does not exist in the container"
	}
	return failure
}

// identity is who the program is to be.
func (in *inside) identity() confine.Identity {
	p := in.config.Process
	return confine.Identity{User: p.User, Capabilities: p.Capabilities, NoNewPrivileges: p.NoNewPrivileges, Filter: in.config.Seccomp}
}

// lookPath finds a program in the container as execvp(3) would.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", err
		}
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.ENOENT) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &InitError{Step: "execute " + name, Text: "there is no such program in the container's PATH (" + path + ")", Errno: unix.ENOENT, Kind: NotFound}
}

func executable(file string) error {
	failure := &InitError{Step: "execute " + file, Kind: NotExecutable}
	var st unix.Stat_t
	err := unix.Stat(file, &st)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		failure.Kind, failure.Text, failure.Errno = NotFound, "there is no such program in the container", unix.ENOENT
	case err != nil:
		failure.Text = err.Error()
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		failure.Text = "is a directory"
	case unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS) != nil:
		failure.Text, failure.Errno = "permission denied", unix.EACCES
	default:
		return nil
	}
	return failure
}

// retry repeats a system call that a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}
