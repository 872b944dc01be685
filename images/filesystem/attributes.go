package filesystem

import (
	"archive/tar"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Records of the archive: see the package's documentation.
const (
	recordSocket   = "CRUCIBLE.socket"
	recordSparse   = "CRUCIBLE.sparse"
	recordEnd      = "CRUCIBLE.end"
	recordXattr    = "SCHILY.xattr."
	recordHexXattr = "CRUCIBLE.xattr."
)

// xattrs reads the extended attributes of a file.
type xattrs struct {
	list func(dest []byte) (int, error)
	get  func(name string, dest []byte) (int, error)
}

func fileXattrs(fd int) xattrs {
	return xattrs{
		func(dest []byte) (int, error) { return unix.Flistxattr(fd, dest) },
		func(name string, dest []byte) (int, error) { return unix.Fgetxattr(fd, name, dest) },
	}
}

func pathXattrs(path string) xattrs {
	return xattrs{
		func(dest []byte) (int, error) { return unix.Llistxattr(path, dest) },
		func(name string, dest []byte) (int, error) { return unix.Lgetxattr(path, name, dest) },
	}
}

// attributes adds a file's extended attributes to its entry.
func (s *saver) attributes(h *tar.Header, n *node, x xattrs) error {
	list, err := sized(x.list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes of %s: %w", n.path, err)
	}
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" {
			continue
		}
		if err := s.refuse(n, name); err != nil {
			return err
		}
		value, err := sized(func(dest []byte) (int, error) { return x.get(name, dest) })
		if err != nil {
			return fmt.Errorf("read attribute %s of %s: %w", name, n.path, err)
		}
		h.PAXRecords[xattrRecord(name)] = string(value)
	}
	return nil
}

// sized calls a system call of xattr(7), which wants to be told how much room
// there is. Most files have no attribute, and the rest short ones.
func sized(call func(dest []byte) (int, error)) ([]byte, error) {
	var room [256]byte
	n, err := call(room[:])
	if err == nil {
		return append([]byte(nil), room[:n]...), nil
	}
	for err == unix.ERANGE {
		if n, err = call(nil); err != nil {
			break
		}
		big := make([]byte, n)
		if n, err = call(big); err == nil {
			return big[:n], nil
		}
	}
	return nil, err
}

// refuse says no to an upper directory that is not complete in itself.
func (s *saver) refuse(n *node, xattr string) error {
	if !s.upper {
		return nil
	}
	switch strings.TrimPrefix(strings.TrimPrefix(xattr, "trusted."), "user.") {
	case "overlay.metacopy":
		return fmt.Errorf("%s: its content is in the lower directory (%s): mount the overlay with metacopy=off", n.path, xattr)
	case "overlay.redirect":
		return fmt.Errorf("%s: refers to another path of the lower directory (%s): mount the overlay with redirect_dir=off", n.path, xattr)
	}
	return nil
}

// xattrRecord is the name of the record for an attribute. A record's name
// ends at the first "=".
func xattrRecord(name string) string {
	if strings.Contains(name, "=") {
		return recordHexXattr + hex.EncodeToString([]byte(name))
	}
	return recordXattr + name
}

// xattrsOf are the extended attributes of an entry.
func xattrsOf(h *tar.Header) (map[string]string, error) {
	var all map[string]string
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, recordXattr)
		if !ok {
			coded, ok := strings.CutPrefix(record, recordHexXattr)
			if !ok {
				continue
			}
			b, err := hex.DecodeString(coded)
			if err != nil {
				return nil, fmt.Errorf("has an attribute with a bad name: %w", err)
			}
			name = string(b)
		}
		if name == "" || strings.Contains(name, "\x00") {
			return nil, fmt.Errorf("has an attribute with the name %q", name)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = value
	}
	return all, nil
}
