package digest

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"crucible/images/blake3"
)

// Followed are the values of the leading blocks of files, by path from the
// tree's directory.
type Followed map[string][]blake3.Value

// Follower hashes files while they are being written.
type Follower struct {
	root, dir, pattern string
	stop               chan struct{}
	done               sync.WaitGroup
	values             Followed
	buf                []byte
}

// Follow begins to hash the files of root/dir that match pattern, which must
// grow at their end only, as CRIU's pages do. It costs one goroutine, which
// looks every 5 ms: no event tells, as CRIU fills the file by splice(2), which
// wakes no inotify watch before Linux 6.5 (fsnotify commit 983652c69199).
// Files that are complete earlier than that are left to Tree. Stop must be
// called.
func Follow(root, dir, pattern string) *Follower {
	f := &Follower{root: root, dir: dir, pattern: pattern, stop: make(chan struct{}), values: Followed{}}
	f.done.Go(f.run)
	return f
}

// Stop ends the following, also when the writer has not ended, and returns
// what was hashed. What the follower could not read is not there; Tree will
// say why.
func (f *Follower) Stop() Followed {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
	return f.values
}

func (f *Follower) run() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		names, _ := filepath.Glob(filepath.Join(f.root, f.dir, f.pattern))
		for _, name := range names {
			f.catchUp(name)
		}
	}
}

// catchUp hashes the blocks of a file that have become whole. The last one
// may still get longer; it is left to Tree, as is every error.
func (f *Follower) catchUp(name string) {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	key, err := filepath.Rel(f.root, name)
	if err != nil {
		return
	}
	whole := int(info.Size() / blake3.BlockSize)
	if len(f.values[key]) >= whole {
		return
	}
	fd, err := open(name)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if f.buf == nil {
		f.buf = make([]byte, blake3.BlockSize)
	}
	for n := len(f.values[key]); n < whole; n++ {
		select {
		case <-f.stop:
			return
		default:
		}
		if _, err := readBlock(fd, name, f.buf, n, info.Size()); err != nil {
			return
		}
		f.values[key] = append(f.values[key], blake3.Block(f.buf, uint64(n)))
	}
}
