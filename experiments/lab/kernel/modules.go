package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Modules are those of one kernel, as files of a directory. It reads what it
// is asked for, and keeps it.
type Modules struct {
	dir     string
	release string            // that of the kernel they must fit, or ""
	files   map[string]string // name: path below dir
	builtin map[string]bool

	read    map[string]*module  // by name
	aliases map[string][]string // alias: modules; nil until one is asked for
}

// module is one that was read.
type module struct {
	modinfo
	data []byte
}

// OpenModules lists the modules of a directory, which is
//
//   - a lib/modules/RELEASE, as packages and `make modules_install` make them
//   - a tree in which a kernel was built, by its modules.order
//
// with .ko files, plain or compressed with xz, zstd or gzip. No modules.dep is
// needed. Load refuses modules whose vermagic is not release, unless it is "".
// A build tree without a single module is right; elsewhere that is an error.
func OpenModules(dir, release string) (*Modules, error) {
	m := &Modules{dir: dir, release: release, files: map[string]string{}, builtin: map[string]bool{}, read: map[string]*module{}}
	list := m.installed
	tree := isBuildTree(dir)
	if tree {
		list = m.built
	}
	if err := list(); err != nil {
		return nil, fmt.Errorf("modules %s: %w", dir, err)
	}
	if err := m.readBuiltin(); err != nil {
		return nil, fmt.Errorf("modules %s: %w", dir, err)
	}
	if !tree && len(m.files) == 0 && len(m.builtin) == 0 {
		return nil, fmt.Errorf("modules %s: neither a module nor a modules.builtin: not a lib/modules/RELEASE, not a kernel build", dir)
	}
	return m, nil
}

// isBuildTree holds for the output directory of a build: what is installed has
// no .config, and its links named build and source are not followed.
func isBuildTree(dir string) bool {
	for _, name := range []string{".config", "arch/x86/boot"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

func (m *Modules) installed() error {
	return filepath.WalkDir(m.dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.dir, file)
		if err == nil && entry.Type().IsRegular() {
			m.add(rel)
		}
		return err
	})
}

// built takes the list of a build. Lines end in .o since Linux 6.3, in .ko
// before. A module that is listed and was not made counts as absent.
func (m *Modules) built() error {
	return m.lines("modules.order", func(line string) error {
		rel := strings.TrimSuffix(line, path.Ext(line)) + ".ko"
		_, err := os.Stat(filepath.Join(m.dir, rel))
		if err == nil {
			m.add(rel)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// add takes a file if its name is that of a module.
func (m *Modules) add(rel string) {
	if name, ok := moduleName(rel); ok {
		if _, has := m.files[name]; !has {
			m.files[name] = rel
		}
	}
}

func moduleName(file string) (string, bool) {
	base := filepath.Base(file)
	for _, ending := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok := strings.CutSuffix(base, ending); ok && name != "" {
			return plain(name), true
		}
	}
	return "", false
}

func (m *Modules) readBuiltin() error {
	return m.lines("modules.builtin", func(line string) error {
		if name, ok := moduleName(line); ok {
			m.builtin[name] = true
		}
		return nil
	})
}

// lines calls do for each line of a file, if there is one.
func (m *Modules) lines(name string, do func(line string) error) error {
	f, err := os.Open(filepath.Join(m.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			if err := do(line); err != nil {
				return err
			}
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// ReadModule reads the content of a module's file, and gives the name that the
// file has, and its content, without the compression.
func ReadModule(file string, r io.Reader) (plainFile string, data []byte, err error) {
	if data, err = io.ReadAll(r); err == nil {
		data, err = unpack(data)
	}
	if err != nil {
		return "", nil, fmt.Errorf("module %s: %w", file, err)
	}
	before, _, _ := strings.Cut(file, ".ko")
	return before + ".ko", data, nil
}
