package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/container/confine/seccomp"
)

// Decode reads JSON into a struct and refuses a key that the struct has no
// field for, by its path. The runtime specification has runtimes ignore such
// keys ("Extensibility" in config.md); here what a bundle asks for is done or
// refused, and a misspelt key asks for something.
func Decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return err
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return err
	}
	return unknownKey(tree, reflect.TypeOf(into), "")
}

// unknownKey compares as the specification does: the case of a key matters,
// which it does not to encoding/json.
func unknownKey(tree any, t reflect.Type, at string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := tree.(type) {
	case []any:
		for i, element := range v {
			if err := unknownKey(element, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			inside, known := fieldType(t, key)
			name := strings.TrimPrefix(at+"."+key, ".")
			if !known {
				return fmt.Errorf("%s: there is no such field", name)
			}
			if err := unknownKey(v[key], inside, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldType is the type of what stands behind a key: any key of a map is known.
func fieldType(t reflect.Type, key string) (reflect.Type, bool) {
	if t.Kind() == reflect.Map {
		return t.Elem(), true
	}
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name == key {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

// checkVersion takes every 1.x: minor versions only add fields
// ("Specification version" in config.md), and those are told by their names.
func checkVersion(version string) error {
	if version == "" {
		return errors.New("ociVersion: is missing")
	}
	if major, _, dotted := strings.Cut(version, "."); major != "1" || !dotted {
		return fmt.Errorf("ociVersion: %q is not supported (1.x.y is)", version)
	}
	return nil
}

func checkConsole(p *specs.Process) error {
	size := p.ConsoleSize
	switch {
	case size == nil:
		return nil
	case !p.Terminal:
		return errors.New("process.consoleSize: needs process.terminal")
	case size.Height > math.MaxUint16 || size.Width > math.MaxUint16:
		return fmt.Errorf("process.consoleSize: %d by %d is more than a terminal can have", size.Height, size.Width)
	}
	return nil
}

// checkPaths looks at what the container's own root decides the meaning of.
func checkPaths(l *specs.Linux) error {
	for _, list := range []struct {
		field string
		paths []string
	}{{"linux.maskedPaths", l.MaskedPaths}, {"linux.readonlyPaths", l.ReadonlyPaths}} {
		for i, p := range list.paths {
			if !path.IsAbs(p) {
				return fmt.Errorf("%s[%d]: %q is not an absolute path", list.field, i, p)
			}
		}
	}
	for i, d := range l.Devices {
		field := fmt.Sprintf("linux.devices[%d]", i)
		switch {
		case !path.IsAbs(d.Path) || path.Clean(d.Path) == "/":
			return fmt.Errorf("%s.path: %q is not an absolute path of a device", field, d.Path)
		case !slices.Contains([]string{"c", "u", "b", "p"}, d.Type):
			return fmt.Errorf("%s.type: %q is not one of c, u, b, p", field, d.Type)
		case d.Major < 0 || d.Major > math.MaxUint32 || d.Minor < 0 || d.Minor > math.MaxUint32:
			return fmt.Errorf("%s.major: there is no device %d:%d", field, d.Major, d.Minor)
		}
	}
	return nil
}

// checkOffsets knows the clocks of time_namespaces(7).
func checkOffsets(offsets map[string]specs.LinuxTimeOffset) error {
	for _, clock := range slices.Sorted(maps.Keys(offsets)) {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("linux.timeOffsets.%s: there is no such clock (monotonic and boottime are)", clock)
		}
		if n := offsets[clock].Nanosecs; n >= 1e9 {
			return fmt.Errorf("linux.timeOffsets.%s.nanosecs: %d is a second or more", clock, n)
		}
	}
	return nil
}

func checkSeccomp(l *specs.Linux) error {
	if _, err := seccomp.Compile(l.Seccomp); err != nil {
		return fmt.Errorf("linux.%w", err)
	}
	return nil
}
