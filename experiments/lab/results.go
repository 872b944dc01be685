package lab

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Static refuses a program that a guest without libraries cannot execute.
func Static(program string) error {
	file, err := elf.Open(program)
	if err != nil {
		var bad *elf.FormatError
		if errors.As(err, &bad) {
			err = errors.New("not a program (ELF)")
		}
		return fmt.Errorf("take %s along: %w", program, err)
	}
	defer file.Close()
	if file.Class != elf.ELFCLASS64 || file.Machine != elf.EM_X86_64 {
		return fmt.Errorf("take %s along: it is for %s, and the lab's machines are x86-64", program, file.Machine)
	}
	if loader := interpreter(file); loader != "" {
		return &DynamicError{Program: program}
	}
	return nil
}

// DynamicError is a program that needs libraries where none are.
type DynamicError struct{ Program string }

func (e *DynamicError) Error() string { return e.Program + " is not a static program" }

// Hint says what to do about it.
func (e *DynamicError) Hint() string {
	return "build it without libraries (Go: CGO_ENABLED=0, C: -static), or take them along: --with " + e.Program
}

// The guest is not trusted with the host's files: everything that it sends goes
// below Keep, through an os.Root, which no path and no link leads out of.

// maxResults bounds what a guest can put there.
const maxResults = diskSize

// keepConsole returns where the kernel's log is kept; "" for nowhere.
func (m *Machine) keepConsole(console []byte) (string, error) {
	if m.Keep == "" || m.Job.Shell != nil {
		return "", nil
	}
	name := filepath.Join(m.Keep, consoleName)
	if err := os.MkdirAll(m.Keep, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(name, console, 0o644); err != nil {
		return "", err
	}
	return name, nil
}

// keepChunk appends to a file of the results folder.
func (m *Machine) keepChunk(c Chunk) error {
	if m.Keep == "" {
		return nil
	}
	return m.below(func(root *os.Root) error {
		if err := root.MkdirAll(path.Dir(c.Path), 0o755); err != nil {
			return err
		}
		file, err := root.OpenFile(c.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		_, err = file.Write(c.Data)
		return errors.Join(err, file.Close())
	})
}

// keepDisk takes the results from the guest's disk, which starts with a tar.
func (m *Machine) keepDisk() error {
	disk, err := os.Open(filepath.Join(m.dir, "disk"))
	if err != nil {
		return err
	}
	defer disk.Close()
	return m.below(func(root *os.Root) error {
		return unpack(root, tar.NewReader(io.LimitReader(disk, maxResults)))
	})
}

func (m *Machine) below(f func(*os.Root) error) error {
	if err := os.MkdirAll(m.Keep, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(m.Keep)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// unpack takes directories, files and relative links; other kinds mean nothing
// outside of the guest. An image's `parent` link is the only link that matters.
func unpack(root *os.Root, in *tar.Reader) error {
	for {
		head, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(head.Name)
		switch head.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, in)
		case tar.TypeSymlink:
			if err = root.Symlink(head.Linkname, name); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, in io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, in)
	return errors.Join(err, file.Close())
}
