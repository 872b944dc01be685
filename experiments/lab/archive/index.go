package archive

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// index is what the archive's lists say about kernels and CRIU: 100 MB, of
// which we keep 100 kB in apt/index.json.
type index struct {
	Updated  time.Time
	Packages []pkg
}

type pkg struct {
	Name    string
	Version string // of the package, 6.12.113-1
	Suite   string
	Size    int64 // of the .deb
}

// flavour of Debian's kernels that the lab uses: a third of the size of the
// general one, with all that matters to checkpoint and restore.
const flavour = "-cloud-amd64"

// wanted holds for packages that the index keeps.
func wanted(name string) bool {
	return name == "criu" || name == "libcompel1" || strings.HasPrefix(name, "linux-") && strings.HasSuffix(name, flavour)
}

const (
	dayOld   = 24 * time.Hour
	freshAge = 10 * time.Minute // when asking again would bring nothing new
)

// index reads the cached index, and renews it if it is older than age. Where
// that fails the result is what there was, which may be nothing, and an error
// if it is nothing.
func (a *Archive) index(ctx context.Context, age time.Duration) (*index, error) {
	x := a.readIndex()
	tried := a.tried.Load()
	old := time.Since(x.Updated) >= age || a.Refresh && !tried
	if !old || tried && !x.Updated.IsZero() {
		return x, nil
	}
	a.tried.Store(true)
	renewed, err := a.renew(ctx)
	switch {
	case err == nil:
		return renewed, nil
	case ctx.Err() != nil || x.Updated.IsZero():
		return x, err
	}
	a.say("using the index of %s: %v", x.Updated.Format(time.DateTime), err)
	return x, nil
}

// readIndex gives an empty index if there is none that can be read.
func (a *Archive) readIndex() *index {
	x := new(index)
	data, err := os.ReadFile(a.path("apt", "index.json"))
	if err != nil || json.Unmarshal(data, x) != nil || time.Until(x.Updated) > 0 {
		return new(index)
	}
	return x
}

// renew fetches the lists of every suite that the mirror has.
func (a *Archive) renew(ctx context.Context) (*index, error) {
	began := time.Now()
	lock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if x := a.readIndex(); x.Updated.After(began) {
		return x, nil // somebody else did, while we waited
	}
	apt, err := newApt(ctx, a.path("apt"), lock)
	if err != nil {
		return nil, err
	}
	a.say("reading the archive's index, some seconds")
	x, err := apt.index(ctx)
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return nil, err
	}
	return x, writeFile(a.path("apt", "index.json"), data)
}

func (a *apt) index(ctx context.Context) (*index, error) {
	all, err := a.use("all", append(suites(false), suites(true)...)...)
	if err != nil {
		return nil, err
	}
	x := &index{Updated: time.Now()}
	// A suite that the mirror does not have makes apt fail, and leaves the
	// others as they should be. What could not be reached does not.
	_, errout, err := a.try(ctx, a.dir, "apt-get", all, "update")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if trouble := fetchTrouble(errout); trouble != "" {
		return nil, unreachable("the archive's index", errors.New(trouble))
	}
	out, err2 := a.run(ctx, a.dir, "apt-get", all, "indextargets", "--format", "$(RELEASE)\t$(FILENAME)", "Created-By: Packages")
	if err2 != nil {
		return nil, err2
	}
	lists := 0
	for line := range strings.Lines(string(out)) {
		suite, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if _, err := os.Stat(file); err != nil {
			continue
		}
		text, err := a.run(ctx, a.dir, helper, "cat-file", file)
		if err != nil {
			return nil, err
		}
		lists++
		x.Packages = append(x.Packages, parsePackages(text, suite)...)
	}
	if lists == 0 {
		if err == nil {
			err = errors.New("no suite of Debian found there")
		}
		return nil, unreachable("the archive's index", fmt.Errorf("%w: %s", err, complaint(errout)))
	}
	slices.SortStableFunc(x.Packages, func(a, b pkg) int { return strings.Compare(a.Name, b.Name) })
	return x, nil
}

// fetchTrouble is the first line in which apt says that it could not reach
// something, but not that it is not there.
func fetchTrouble(errout []byte) string {
	for line := range strings.Lines(string(errout)) {
		if strings.Contains(line, "Failed to fetch") && !strings.Contains(line, "404") {
			return strings.TrimSpace(line[strings.Index(line, "Failed to fetch"):])
		}
	}
	return ""
}

// parsePackages reads a Packages file, as deb822(5) has it.
func parsePackages(text []byte, suite string) []pkg {
	var list []pkg
	var p pkg
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Bytes()
		switch {
		case len(line) == 0:
			if p.Name != "" && p.Version != "" {
				list = append(list, p)
			}
			p = pkg{}
		case bytes.HasPrefix(line, []byte("Package: ")):
			if name := string(line[len("Package: "):]); wanted(name) {
				p = pkg{Name: name, Suite: suite}
			}
		case p.Name == "":
		case bytes.HasPrefix(line, []byte("Version: ")):
			p.Version = string(line[len("Version: "):])
		case bytes.HasPrefix(line, []byte("Size: ")):
			p.Size, _ = strconv.ParseInt(string(line[len("Size: "):]), 10, 64)
		}
	}
	if p.Name != "" && p.Version != "" {
		list = append(list, p)
	}
	return list
}
