package inspect

import (
	"os"
	"path/filepath"
	"strings"

	"crucible/images"
)

// IPC is what is in the container's ipc namespace: System V's (sysvipc(7)).
type IPC struct {
	Segments   []Segment `json:"segments"`   // shared memory
	Semaphores []IPCSet  `json:"semaphores"` // sets
	Queues     []IPCSet  `json:"queues"`     // of messages
}

// Segment is a segment of shared memory.
type Segment struct {
	Key  uint32 `json:"key"`
	ID   uint32 `json:"id"`
	Size uint64 `json:"size"` // bytes
}

// IPCSet is a set of semaphores, or a queue, and how many are in it.
type IPCSet struct {
	Key   uint32 `json:"key"`
	ID    uint32 `json:"id"`
	Count uint32 `json:"count"`
}

type ipcDesc struct {
	Key uint32 `criu:"key"`
	ID  uint32 `criu:"id"`
}

// ReadIPC reads what is in the ipc namespaces.
func ReadIPC(i *images.Image) (*IPC, error) {
	r, err := newReader(i)
	if err != nil {
		return nil, err
	}
	all := &IPC{Segments: []Segment{}, Semaphores: []IPCSet{}, Queues: []IPCSet{}}
	entries, err := os.ReadDir(i.CRIUDir())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := filepath.Base(e.Name())
		switch {
		case strings.HasPrefix(name, "ipcns-shm-"):
			err = r.segments(all, name)
		case strings.HasPrefix(name, "ipcns-sem-"):
			err = r.semaphores(all, name)
		case strings.HasPrefix(name, "ipcns-msg-"):
			err = r.queues(all, name)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (r *reader) segments(all *IPC, name string) error {
	found, err := load[struct {
		Desc ipcDesc `criu:"desc"`
		Size uint64  `criu:"size"`
	}](r, "%s", name)
	for _, e := range found {
		all.Segments = append(all.Segments, Segment{e.Desc.Key, e.Desc.ID, e.Size})
	}
	return err
}

func (r *reader) semaphores(all *IPC, name string) error {
	found, err := load[struct {
		Desc  ipcDesc `criu:"desc"`
		Count uint32  `criu:"nsems"`
	}](r, "%s", name)
	for _, e := range found {
		all.Semaphores = append(all.Semaphores, IPCSet{e.Desc.Key, e.Desc.ID, e.Count})
	}
	return err
}

func (r *reader) queues(all *IPC, name string) error {
	found, err := load[struct {
		Desc  ipcDesc `criu:"desc"`
		Count uint32  `criu:"qnum"`
	}](r, "%s", name)
	for _, e := range found {
		all.Queues = append(all.Queues, IPCSet{e.Desc.Key, e.Desc.ID, e.Count})
	}
	return err
}
