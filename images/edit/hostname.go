package edit

import (
	"strings"

	"crucible/images"
	"crucible/proto/imagepb"
)

// longestName is __NEW_UTS_LEN of the kernel (include/uapi/linux/utsname.h).
const longestName = 64

// hostname changes the name in the uts namespace, which CRIU sets again, and in
// the bundle, of which the container is started anew.
func (e *Edit) hostname() error {
	name := e.o.Hostname
	if name == "" {
		return nil
	}
	if len(name) > longestName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return e.refuse("letters, digits and dashes will do, such as web-2", "host name %q: must be of at most %d printable ASCII characters", name, longestName)
	}
	n := e.namespace(imagepb.NamespaceKind_NAMESPACE_KIND_UTS)
	if n.GetHost() || n.GetUts() == nil {
		return e.refuse("edit something else of it", "host name: the container has the host's: it has no uts namespace of its own")
	}
	old := n.GetUts().Hostname
	if old == name {
		return nil
	}
	if err := e.utsFile(name); err != nil {
		return err
	}
	n.GetUts().Hostname = name
	e.change(images.Namespaces, "uts hostname", old, name)
	e.change(images.Bundle, "hostname", e.bundle.root["hostname"], name)
	e.bundle.set(e.bundle.root, "hostname", name)
	// `crucible run` tells its program the name by a variable.
	if e.variable("HOSTNAME") == old && !e.sets("HOSTNAME") {
		e.o.Env = append(e.o.Env, "HOSTNAME="+name)
	}
	return nil
}

// utsFile edits utsns_entry of CRIU's utsns.proto.
func (e *Edit) utsFile(name string) error {
	const nodename = 1
	files, err := e.criuFiles("utsns-*.img")
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return e.refuse("restore it, change the name inside, and checkpoint it again", "host name: CRIU has dumped %d uts namespaces, and one is expected", len(files))
	}
	return e.rewriteFile(files[0], magicUTS, func(entry []byte) ([]byte, error) {
		return rewrite(entry, func(f *field) error {
			if f.number == nodename {
				e.change(files[0], "nodename", string(f.value), name)
				f.value = []byte(name)
			}
			return nil
		})
	})
}

// rewriteFile edits a file of CRIU's.
func (e *Edit) rewriteFile(file string, magic uint32, entry func([]byte) ([]byte, error)) error {
	b, err := e.read(file)
	if err == nil {
		b, err = rewriteEntries(b, magic, entry)
	}
	if err != nil {
		return e.refuse("verify the image: `crucible image verify "+e.image.Ref()+"`", "%s: %v", file, err)
	}
	e.files[file] = b
	return nil
}
