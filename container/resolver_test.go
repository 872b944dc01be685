package container

import (
	"os"
	"path/filepath"
	"testing"
)

func TestResolver(t *testing.T) {
	const stub, real = "nameserver 127.0.0.53\noptions edns0\n", "# from DHCP\nnameserver 192.0.2.53\n"
	for name, c := range map[string]struct {
		link     string // of /etc/resolv.conf; empty: a file
		files    map[string]string
		ownNet   bool
		path     string
		contents string
	}{
		"a file":             {files: map[string]string{"/etc/resolv.conf": real}, ownNet: true},
		"none":               {ownNet: true},
		"dangling":           {link: "/run/resolvconf/resolv.conf"},
		"not hidden":         {link: "resolv.conf.head", files: map[string]string{"/etc/resolv.conf.head": real}},
		"stub, own network":  {"../run/systemd/resolve/stub-resolv.conf", map[string]string{"/run/systemd/resolve/stub-resolv.conf": stub, upstream: real}, true, "/run/systemd/resolve/stub-resolv.conf", real},
		"stub, host network": {"/run/systemd/resolve/stub-resolv.conf", map[string]string{"/run/systemd/resolve/stub-resolv.conf": stub, upstream: real}, false, "/run/systemd/resolve/stub-resolv.conf", stub},
		"loopback only":      {"/var/run/resolv.conf", map[string]string{"/run/resolv.conf": stub}, true, "/run/resolv.conf", stub},
		"resolvconf":         {"/run/resolvconf/resolv.conf", map[string]string{"/run/resolvconf/resolv.conf": real, upstream: stub}, true, "/run/resolvconf/resolv.conf", real},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.link != "" {
				if err := os.Symlink(c.link, filepath.Join(root, "etc/resolv.conf")); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range c.files {
				if err := os.MkdirAll(filepath.Dir(root+file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root+file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r := resolverOf(root, c.ownNet)
			if r.Path != c.path || string(r.Text) != c.contents {
				t.Errorf("%s: %q, want %s: %q", r.Path, r.Text, c.path, c.contents)
			}
			into := t.TempDir()
			dir, err := os.Open(into)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := r.Apply(dir, os.Getuid(), os.Getgid()); err != nil || c.path == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if got, err := os.ReadFile(into + c.path); err != nil || string(got) != c.contents {
				t.Errorf("copied as %q, %v", got, err)
			}
			if info, err := os.Stat(into + c.path); err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}
