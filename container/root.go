package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/name"
)

// DefaultRoot is where containers and images are kept unless the user says otherwise.
const DefaultRoot = "/var/lib/crucible"

// Root is the directory that holds everything Crucible keeps:
//
//	containers/NAME/   config.json state.json log monitor.sock rootfs/ layer/
//	images/NAME/N/     see package images
//	network/           address leases, see package network
//	logs/NAME/         what CRIU wrote in the last checkpoint and restore
//	empty/             masks directories in containers
type Root string

func (r Root) containers() string { return filepath.Join(string(r), "containers") }

// Images is the directory of the image store.
func (r Root) Images() string { return filepath.Join(string(r), "images") }

// Logs is the directory for CRIU's logs of a container. It is deleted with the
// container, but not in it: a restore that failed leaves no container, and must
// leave its log.
func (r Root) Logs(name string) string { return filepath.Join(string(r), "logs", name) }

// dir is the state directory of a container.
func (r Root) dir(name string) string { return filepath.Join(r.containers(), name) }

// Open returns the container with that name, or a *NotFoundError.
func (r Root) Open(containerName string) (*Container, error) {
	if err := name.ValidName(containerName); err != nil {
		return nil, err
	}
	c := &Container{Root: r, Name: containerName, Dir: r.dir(containerName)}
	if err := c.load(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NotFoundError{Name: containerName, Root: r}
		}
		return nil, err
	}
	return c, nil
}

// List returns all containers in the order of their names. A container that
// cannot be read is in the list of errors, and does not hide the others.
func (r Root) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.containers())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []*Container
	var bad []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // being created, see Sweep
		}
		c, err := r.Open(e.Name())
		var missing *NotFoundError
		switch {
		case errors.As(err, &missing): // being created or deleted right now
		case err != nil:
			bad = append(bad, err)
		default:
			all = append(all, c)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, errors.Join(bad...)
}

// NotFoundError says that there is no container of that name.
type NotFoundError struct {
	Name string
	Root Root
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("open container %s: does not exist below %s", e.Name, e.Root)
}

// ExistsError says that the name is taken.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("create container %s: exists already", e.Name)
}

// StateError says that a container is not in a state that allows the operation.
type StateError struct {
	Op, Name string
	Is       Status
	Want     []Status
}

func (e *StateError) Error() string {
	want := ""
	for i, s := range e.Want {
		if i > 0 {
			want += " or "
		}
		want += string(s)
	}
	return fmt.Sprintf("%s container %s: it is %s, and must be %s", e.Op, e.Name, e.Is, want)
}

// draft is where the calling process makes a container's directory before that
// gets its name.
func (r Root) draft(name string) string {
	return r.dir("." + name + "." + strconv.Itoa(os.Getpid()))
}

// Sweep removes the drafts of commands that were killed.
func (r Root) Sweep() error {
	entries, err := os.ReadDir(r.containers())
	if err != nil {
		return ignoreMissing(err)
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") {
			continue
		}
		pid, err := strconv.Atoi(name[strings.LastIndexByte(name, '.')+1:])
		if err != nil || pid <= 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		errs = append(errs, os.RemoveAll(r.dir(name)))
	}
	return errors.Join(errs...)
}
