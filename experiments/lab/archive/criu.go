package archive

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// CRIU is one in the cache, with every library it loads and its own ld.so,
// at the places where these look for each other: Dir is laid over the root of
// a system, or used as its root.
type CRIU struct {
	Version string // 4.1.1
	Dir     string
	Path    string // Dir/usr/sbin/criu
}

// CRIU gives a CRIU by its version: "4.1.1", or the newest of "4". Debian's
// suites have one each.
func (a *Archive) CRIU(ctx context.Context, version string) (CRIU, error) {
	e, dir, err := a.get(ctx, CRIUKind, version, fillCRIU)
	if err != nil {
		return CRIU{}, err
	}
	return CRIU{Version: e.Version, Dir: dir, Path: filepath.Join(dir, criuFile)}, nil
}

const (
	criuFile = "usr/sbin/criu"
	// libraries is where every ld.so of Debian looks; its own place is written
	// into each program.
	libraries = "usr/lib/x86_64-linux-gnu"
)

func fillCRIU(ctx context.Context, apt *apt, e Entry, dir string) error {
	only, err := apt.use(e.Suite+"-criu", withBase(e.Suite)...)
	if err != nil {
		return err
	}
	packages, err := apt.closure(ctx, only, e)
	if err != nil {
		return err
	}
	debs, err := apt.fetch(ctx, only, packages)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(apt.dir, unfinished+"*")
	if err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	defer os.RemoveAll(root)
	for _, deb := range debs {
		if _, err := apt.run(ctx, apt.dir, "dpkg-deb", "-x", deb, root); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return copyClosure(root, dir)
}

// closure is what apt would install with a CRIU where nothing is installed,
// as far as it can have libraries: the rest is for its Python tools. apt takes
// what is not named from the suite that is preferred; that is not experimental.
func (a *apt) closure(ctx context.Context, only string, e Entry) ([]pkg, error) {
	args := []string{only, "--simulate", "install"}
	for _, p := range e.packages {
		args = append(args, p.Name+"="+p.Version)
	}
	out, err := a.run(ctx, a.dir, "apt-get", args...)
	if err != nil {
		return nil, fmt.Errorf("CRIU %s: %w", e.Package, err)
	}
	var list []pkg
	for line := range strings.Lines(string(out)) {
		// Inst libc6 (2.41-12 Debian:13.1/stable [amd64])
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" || f[1] != "criu" && !strings.HasPrefix(f[1], "lib") {
			continue
		}
		list = append(list, pkg{Name: f[1], Version: strings.TrimPrefix(f[2], "(")})
	}
	if i := slices.IndexFunc(list, func(p pkg) bool { return p.Name == "criu" }); i < 0 || list[i].Version != e.Package {
		return nil, fmt.Errorf("CRIU %s: apt would not install it from %s", e.Package, e.Suite)
	}
	return list, nil
}

// withBase is a suite and the one it is an addition to.
func withBase(suite string) []string {
	base, _, addition := strings.Cut(suite, "-")
	switch {
	case addition:
		return []string{base, suite}
	case suite == "experimental":
		return []string{"unstable", suite}
	}
	return []string{suite}
}

// copyClosure takes CRIU and what it loads out of a root into which the
// packages were unpacked.
func copyClosure(root, dir string) error {
	known, err := sharedObjects(root)
	if err != nil {
		return err
	}
	program, err := elf.Open(filepath.Join(root, criuFile))
	if err != nil {
		return fmt.Errorf("%s: %w", criuFile, err)
	}
	defer program.Close()
	loader, err := interpreter(program)
	if err != nil {
		return fmt.Errorf("%s: %w", criuFile, err)
	}
	copies := map[string]string{criuFile: filepath.Join(root, criuFile)} // to, from
	need, err := program.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", criuFile, err)
	}
	need = append(need, filepath.Base(loader))
	for len(need) > 0 {
		name := need[0]
		need = need[1:]
		to := filepath.Join(libraries, name)
		if name == filepath.Base(loader) {
			to = strings.TrimPrefix(loader, "/")
		}
		if copies[to] != "" {
			continue
		}
		from := known[name]
		if from == "" {
			return fmt.Errorf("CRIU needs %s, which none of its packages has", name)
		}
		copies[to] = from
		more, err := imported(from)
		if err != nil {
			return err
		}
		need = append(need, more...)
	}
	for to, from := range copies {
		if err := copyFile(from, filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	return nil
}

// sharedObjects finds the files by the names that ld.so asks for, which are
// often links.
func sharedObjects(root string) (map[string]string, error) {
	files, links := map[string]string{}, map[string]string{}
	for _, dir := range []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(root, dir, e.Name())
			if !strings.Contains(e.Name(), ".so") {
				continue
			}
			if e.Type()&fs.ModeSymlink != 0 {
				target, err := os.Readlink(path)
				if err != nil {
					return nil, err
				}
				links[e.Name()] = filepath.Base(target)
			} else if e.Type().IsRegular() {
				files[e.Name()] = path
			}
		}
	}
	for name, target := range links {
		if files[name] == "" && files[target] != "" {
			files[name] = files[target]
		}
	}
	return files, nil
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			data, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(data), "\x00"), err
		}
	}
	return "", errors.New("names no ld.so")
}

func imported(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	defer f.Close()
	return f.ImportedLibraries()
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	return err
}
