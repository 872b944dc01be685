package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"crucible/container/mount"
	"crucible/images"
)

// openImages opens the directory of CRIU's files. From there CRIU finds those of
// the images before by the link "parent", ../../N/criu, and where the container
// has a user namespace CRIU's tasks do so as its root: somebody to whom
// the images' own directories are closed. So the chain is shown to it, on the
// monitor's thread alone, without them:
//
//	<container>/chain/       a tmpfs
//	<container>/chain/N/criu a bind of images/NAME/N/criu, for each member
//
// The view of an image that is packed, or of one that builds on such a one, is
// like that already.
func (j *job) openImages() (dir *os.File, undo func(), err error) {
	if err := <-j.viewed; err != nil {
		return nil, nil, err
	}
	chain, err := j.image.Chain()
	if err != nil {
		return nil, nil, err
	}
	temporary, _ := j.view.Temporary()
	if temporary != "" || len(chain) == 1 || !j.image.Manifest.GetTraits().GetUserNamespace() {
		dir, err = os.Open(j.view.CRIUDir())
		return dir, func() {}, err
	}
	const place = "/chain"
	home := j.m.Container().Dir
	root, err := os.OpenFile(home, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	undo = func() {
		_ = unix.Unmount(home+place, unix.MNT_DETACH)
		_ = os.Remove(home + place)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err = mount.Mount{Type: "tmpfs", Target: place, Flags: flags, Data: "mode=755,size=64k"}.Apply(root)
	at := func(i *images.Image) string { return filepath.Join(place, strconv.Itoa(i.Number), images.CRIU) }
	for _, i := range chain {
		if err == nil {
			err = mount.Mount{Type: "bind", Source: i.CRIUDir(), Target: at(i), Flags: flags | unix.MS_RDONLY}.Apply(root)
		}
	}
	if err == nil {
		dir, err = os.Open(home + at(chain[0]))
	}
	if err != nil {
		undo()
		return nil, nil, fmt.Errorf("show the images to CRIU: %w", err)
	}
	return dir, undo, nil
}

// unpack makes CRIU's files of the image again, if they are packed.
func (j *job) unpack(ctx context.Context) {
	defer close(j.viewed)
	end := j.line.Begin("unpack", false)
	v, err := j.image.View(ctx, images.ViewOptions{})
	if err == nil {
		if dir, _ := v.Temporary(); dir != "" {
			end()
		}
	}
	j.view = v
	j.viewed <- err
}

// endView removes what was unpacked: CRIU has it open, or will not read it.
func (j *job) endView() {
	j.noView()
	<-j.viewed
	if j.view != nil {
		_ = j.view.Close() // else the next command sweeps it
	}
}

// leaveView leaves it to the monitor, which removes the directory once the loader
// has ended, and keeps others from doing so until then by the loader's own lock.
func (j *job) leaveView() (dir string) {
	dir, _ = j.view.Temporary()
	j.view.Leave()
	return dir
}
