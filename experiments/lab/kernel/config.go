package kernel

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Config is a kernel's configuration: what stands behind CONFIG_NAME=, that is
// y, m, a number or a string in quotes; n for "is not set". What the kernel
// does not know, or what depends on something that is off, is not in it.
type Config map[string]string

// NoConfig says that a kernel does not carry its configuration.
type NoConfig struct{ Path string }

func (e *NoConfig) Error() string {
	return fmt.Sprintf("configuration %s: not in this kernel, which was built without CONFIG_IKCONFIG", e.Path)
}

// Hint says where else it is.
func (e *NoConfig) Hint() string {
	return "give the .config of its build, or the /boot/config-RELEASE of its package"
}

// ReadConfig reads a configuration from a .config, plain or compressed (as
// /proc/config.gz is), from a kernel that was built with CONFIG_IKCONFIG, or
// from a directory in which a kernel was built.
func ReadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if info.IsDir() {
		path = filepath.Join(path, ".config")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(data) >= headerEnd && string(data[magic:magic+4]) == "HdrS" {
		data, err = embedded(path, data)
	} else if plain, cause := unpack(data); cause != nil {
		err = fmt.Errorf("configuration %s: %w", path, cause)
	} else if data = plain; bytes.Contains(data, []byte(configStart)) { // a vmlinux
		data, err = cutConfig(path, data)
	}
	if err != nil {
		return nil, err
	}
	c := parseConfig(data)
	if len(c) == 0 {
		return nil, fmt.Errorf("configuration %s: neither a .config nor a kernel: not a single CONFIG_ line", path)
	}
	return c, nil
}

// embedded finds the configuration in a bzImage.
func embedded(path string, data []byte) ([]byte, error) {
	img, err := parse(path, data, int64(len(data)))
	if err != nil {
		return nil, err
	}
	vmlinux, err := img.vmlinux(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: the kernel in it: %w", path, err)
	}
	return cutConfig(path, vmlinux)
}

// vmlinux decompresses the kernel proper.
func (i *Image) vmlinux(r io.ReaderAt) ([]byte, error) {
	data := make([]byte, i.payload.length)
	if _, err := r.ReadAt(data, i.payload.offset); err != nil {
		return nil, err
	}
	// All but gzip, which ends with it anyway, have the plain length added,
	// scripts/Makefile.lib, size_append.
	if name, _ := decompressor(data); name != "gzip" && len(data) > 4 {
		data = data[:len(data)-4]
	}
	return unpack(data)
}

// kernel/configs.c
const (
	configStart = "IKCFG_ST"
	configEnd   = "IKCFG_ED"
)

func cutConfig(path string, vmlinux []byte) ([]byte, error) {
	// The kernel's own code does not hold the words side by side with a gzip
	// file, but an error message may hold one.
	for rest := vmlinux; ; {
		_, after, found := bytes.Cut(rest, []byte(configStart))
		if !found {
			return nil, &NoConfig{Path: path}
		}
		packed, _, ended := bytes.Cut(after, []byte(configEnd))
		if ended && bytes.HasPrefix(packed, []byte("\x1f\x8b")) {
			text, err := unpack(packed)
			if err != nil {
				return nil, fmt.Errorf("configuration %s: CONFIG_IKCONFIG's data: %w", path, err)
			}
			return text, nil
		}
		rest = after
	}
}

func parseConfig(text []byte) Config {
	c := Config{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutSuffix(line, " is not set"); ok {
			if name, ok = strings.CutPrefix(name, "# CONFIG_"); ok {
				c[name] = "n"
			}
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if name, is := strings.CutPrefix(name, "CONFIG_"); ok && is {
			c[name] = value
		}
	}
	return c
}
