package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"strings"
)

// modinfo is what the .modinfo section of a module says, include/linux/module.h.
type modinfo struct {
	depends []string // modules whose symbols it uses
	pre     []string // modules or aliases that should be there before
	aliases []string
	release string // of the kernel it was built for, from vermagic
}

// readModinfo looks at the section only, so that a scan of many modules
// does not read them whole.
func readModinfo(r io.ReaderAt) (modinfo, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return modinfo{}, fmt.Errorf("not a module: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return modinfo{}, fmt.Errorf("no .modinfo section")
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf(".modinfo section: %w", err)
	}
	return parseModinfo(data), nil
}

// parseModinfo takes the NUL-terminated "key=value" strings apart.
func parseModinfo(data []byte) modinfo {
	var info modinfo
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		info.add(key, value)
	}
	return info
}

func (m *modinfo) add(key, value string) {
	switch key {
	case "depends":
		for name := range strings.SplitSeq(value, ",") {
			if name != "" {
				m.depends = append(m.depends, plain(name))
			}
		}
	case "softdep":
		// "pre: a b post: c", either may be left out.
		var pre bool
		for _, word := range strings.Fields(value) {
			switch {
			case strings.HasSuffix(word, ":"):
				pre = word == "pre:"
			case pre:
				m.pre = append(m.pre, plain(word))
			}
		}
	case "alias":
		m.aliases = append(m.aliases, plain(value))
	case "vermagic":
		m.release, _, _ = strings.Cut(value, " ")
	}
}

// plain is the one spelling of a name: a file may be called a-b.ko where
// the kernel says a_b.
func plain(name string) string { return strings.ReplaceAll(name, "-", "_") }
