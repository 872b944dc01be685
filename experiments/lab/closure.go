package lab

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Program lists what a guest needs to run a program of the host: the file
// itself at its own path, its loader and its libraries. root is the directory
// that its paths are seen from: "/" for the host's own programs, that of the
// unpacked packages for another suite's.
//
// Libraries are looked for as ld.so(8) does, without LD_LIBRARY_PATH and
// without its cache: DT_RPATH and DT_RUNPATH, then the standard directories.
// One that stands elsewhere (the host found it by its cache) is put next to
// libc, where the guest's loader looks.
func Program(root, program string) ([]File, error) {
	c := closure{root: filepath.Clean(root), seen: map[string]bool{}}
	if err := c.program(program); err != nil {
		return nil, fmt.Errorf("take %s along: %w", program, err)
	}
	return c.files, nil
}

type closure struct {
	root  string
	seen  map[string]bool // by guest path
	files []File
}

func (c *closure) program(p string) error {
	// Programs are often links (python3, sh); the name must lead there, too.
	target, err := c.resolve(p)
	if err != nil {
		return err
	}
	if target != p {
		c.add(File{Path: p, Link: target})
	}
	return c.object(target, nil)
}

// object adds one ELF file and what it needs. above are the search paths of
// those that need it: DT_RPATH holds for the libraries' libraries, too.
func (c *closure) object(p string, above []string) error {
	if c.seen[p] {
		return nil
	}
	file, err := elf.Open(filepath.Join(c.root, p))
	if err != nil {
		var bad *elf.FormatError
		if errors.As(err, &bad) {
			return c.script(p)
		}
		return err
	}
	defer file.Close()
	if file.Class != elf.ELFCLASS64 || file.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%s is a program for %s: the lab's machines are x86-64", p, file.Machine)
	}
	c.add(File{Path: p, Mode: 0o755, Source: filepath.Join(c.root, p)})
	if loader := interpreter(file); loader != "" {
		if err := c.loader(loader); err != nil {
			return err
		}
	}
	return c.libraries(file, p, above)
}

func (c *closure) libraries(file *elf.File, p string, above []string) error {
	needed, err := file.ImportedLibraries()
	if err != nil {
		return err
	}
	paths := append(searchPaths(file, filepath.Dir(p)), above...)
	for _, name := range needed {
		found, err := c.library(name, paths)
		if err != nil {
			return fmt.Errorf("%s needs %w", p, err)
		}
		if err := c.object(found, paths); err != nil {
			return err
		}
	}
	return nil
}

// library finds a library, and the path that it has in the guest.
func (c *closure) library(name string, paths []string) (string, error) {
	for _, dir := range slices.Concat(paths, standardDirs(), otherDirs()) {
		p := filepath.Join(dir, name)
		target, err := c.resolve(p)
		if err != nil {
			continue
		}
		if slices.Contains(otherDirs(), dir) {
			for _, dir := range standardDirs()[:2] {
				c.add(File{Path: filepath.Join(dir, name), Link: target})
			}
		} else if target != p {
			c.add(File{Path: p, Link: target})
		}
		return target, nil
	}
	return "", fmt.Errorf("%s, which is in none of its directories", name)
}

// loader puts the dynamic loader where the program's header names it.
func (c *closure) loader(p string) error {
	target, err := c.resolve(p)
	if err != nil {
		// The packages of a suite leave /lib64 to base-files: look in /usr.
		if target, err = c.resolve("/usr" + p); err != nil {
			return fmt.Errorf("its loader: %w", err)
		}
	}
	if target != p {
		c.add(File{Path: p, Link: target})
	}
	if !c.seen[target] {
		c.add(File{Path: target, Mode: 0o755, Source: filepath.Join(c.root, target)})
	}
	return nil
}

// script adds a file that is no ELF: a text with an interpreter is taken along
// with that.
func (c *closure) script(p string) error {
	text, err := os.ReadFile(filepath.Join(c.root, p))
	if err != nil {
		return err
	}
	c.add(File{Path: p, Mode: 0o755, Source: filepath.Join(c.root, p)})
	line, found := strings.CutPrefix(string(text), "#!")
	if !found {
		return nil
	}
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	return c.program(words[0])
}

func (c *closure) add(f File) {
	if f.Link != "" && merged(f.Link) == merged(f.Path) {
		return // from /bin to /usr/bin, which are the same in a guest
	}
	if !c.seen[f.Path] {
		c.seen[f.Path] = true
		c.files = append(c.files, f)
	}
}

// resolve follows symlinks below the root, and returns the path of what they
// lead to as seen from there.
func (c *closure) resolve(p string) (string, error) {
	done := "/"
	rest := strings.Split(strings.Trim(p, "/"), "/")
	for hops := 0; len(rest) > 0; {
		next := filepath.Join(done, rest[0])
		link, err := os.Readlink(filepath.Join(c.root, next))
		if err != nil {
			if _, err := os.Lstat(filepath.Join(c.root, next)); err != nil {
				return "", &os.PathError{Op: "find", Path: p, Err: errors.Unwrap(err)}
			}
			done, rest = next, rest[1:]
			continue
		}
		if hops++; hops > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", p)
		}
		if filepath.IsAbs(link) {
			done = "/"
		}
		rest = append(strings.Split(strings.Trim(link, "/"), "/"), rest[1:]...)
	}
	return done, nil
}

func interpreter(file *elf.File) string {
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			text := make([]byte, p.Filesz)
			if _, err := p.ReadAt(text, 0); err == nil {
				return strings.TrimRight(string(text), "\x00")
			}
		}
	}
	return ""
}

func searchPaths(file *elf.File, origin string) []string {
	var paths []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := file.DynString(tag)
		if err != nil {
			continue
		}
		for _, value := range values {
			for _, dir := range filepath.SplitList(value) {
				dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
				paths = append(paths, dir)
			}
		}
	}
	return paths
}

// standardDirs are those in which Debian's and Fedora's loaders look, one of
// either first.
func standardDirs() []string {
	return []string{
		"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib/x86_64-linux-gnu", "/lib64", "/usr/lib", "/lib",
	}
}

// otherDirs are those that /etc/ld.so.conf commonly adds.
func otherDirs() []string {
	return []string{"/usr/local/lib/x86_64-linux-gnu", "/usr/local/lib64", "/usr/local/lib"}
}
