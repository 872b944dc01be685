package secrets

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"crucible/images"
	"crucible/images/inspect"
	"crucible/images/inspect/memory"
	"crucible/proto/imagepb"
)

// Finding is a secret, at the first place where it was seen.
type Finding struct {
	Kind    string `json:"kind"`
	Pid     int    `json:"pid,omitempty"`
	Address string `json:"address,omitempty"` // in its memory, hexadecimal
	Shared  uint64 `json:"shared,omitempty"`  // of memory that no process has for itself
	Name    string `json:"name,omitempty"`    // of a variable of its environment
	File    string `json:"file,omitempty"`    // in the container
	Excerpt string `json:"excerpt"`
	Places  int    `json:"places"` // how often it is there
}

// Scan looks for secrets in an image.
func Scan(ctx context.Context, image *images.Image) ([]*Finding, error) {
	s := &scanner{ctx: ctx, image: image, known: map[string]*Finding{}}
	m, err := memory.Open(image)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := s.environments(m.Pids()); err != nil {
		return nil, err
	}
	for _, r := range rules() {
		if err := s.memory(m, r); err != nil {
			return nil, err
		}
	}
	return s.found, s.files()
}

type scanner struct {
	ctx   context.Context
	image *images.Image
	found []*Finding
	known map[string]*Finding
}

// add keeps a secret once.
func (s *scanner) add(f Finding, secret string) {
	key := f.Kind + "\x00" + secret
	if before := s.known[key]; before != nil {
		before.Places++
		return
	}
	f.Excerpt, f.Places = redact(secret), 1
	s.known[key] = &f
	s.found = append(s.found, &f)
}

// redact leaves of a secret what tells it from others, and does not serve.
func redact(secret string) string {
	if strings.HasPrefix(secret, "-----BEGIN") {
		head, _, _ := strings.Cut(secret, "\n")
		return strings.TrimSpace(head)
	}
	shown := min(len(secret)/4, 10)
	return fmt.Sprintf("%s... (%d bytes)", secret[:shown], len(secret))
}

func (s *scanner) environments(pids []int) error {
	name, err := regexp.Compile(secretName)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		all, err := inspect.Environment(s.image, pid)
		if err != nil {
			continue // one without memory of its own has none
		}
		for _, variable := range all {
			key, value, _ := strings.Cut(variable, "=")
			if value != "" && name.MatchString(key) {
				s.add(Finding{Kind: "variable", Pid: pid, Name: key}, value)
			}
		}
	}
	return nil
}

func (s *scanner) memory(m *memory.Memory, r rule) error {
	p, err := memory.Compile(r.expr)
	if err != nil {
		return err
	}
	search := func(space *memory.Space, f Finding) error {
		return space.Search(s.ctx, p, 0, ^uint64(0), func(at memory.Match) error {
			secret := make([]byte, at.Len)
			if _, err := space.ReadAt(secret, int64(at.Addr)); err != nil {
				return err
			}
			f := f
			f.Kind, f.Address = r.kind, fmt.Sprintf("0x%x", at.Addr)
			s.add(f, string(secret))
			return nil
		})
	}
	for _, pid := range m.Pids() {
		space, err := m.Process(pid)
		if err == nil {
			err = search(space, Finding{Pid: pid})
		}
		if err != nil {
			return err
		}
	}
	for _, id := range m.SharedIDs() {
		space, err := m.Shared(id)
		if err == nil {
			err = search(space, Finding{Shared: id})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxFile bounds how much of a file is looked at.
const maxFile = 16 << 20

// files looks into what the container wrote.
func (s *scanner) files() error {
	var trees imagepb.Filesystem
	if err := s.image.Get(images.Filesystem, &trees); err != nil {
		return err
	}
	var exprs []*regexp.Regexp
	for _, r := range rules() {
		e, err := regexp.Compile(r.expr)
		if err != nil {
			return err
		}
		exprs = append(exprs, e)
	}
	for _, a := range trees.Archives {
		f, err := s.image.Open(a.Path)
		if err != nil {
			return err
		}
		err = s.tree(f, strings.TrimSuffix(a.MountPoint, "/"), exprs)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("image %s: %s: %w", s.image.Ref(), a.Path, err)
		}
	}
	return nil
}

func (s *scanner) tree(r io.Reader, point string, exprs []*regexp.Regexp) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return s.ctx.Err()
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(t, maxFile))
		if err != nil {
			return err
		}
		for n, r := range rules() {
			for _, secret := range exprs[n].FindAll(data, -1) {
				s.add(Finding{Kind: r.kind, File: point + "/" + strings.TrimPrefix(h.Name, "./")}, string(secret))
			}
		}
	}
}
