package namespaces

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

// Complete fills in what CRIU's files in a directory say, and the record of the
// processes, which is complete. CRIU numbers namespaces; there is one of each kind
// that is the container's.
func Complete(path string, all *imagepb.Namespaces, p *imagepb.Processes) error {
	dir, err := open(path)
	if err != nil {
		return err
	}
	for _, n := range all.Namespaces {
		switch {
		case n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_PID && !n.Host:
			n.Detail = &imagepb.Namespace_Pid{Pid: &imagepb.PIDNamespace{Highest: highest(p)}}
		case n.GetTime() != nil:
			err = clocks(dir, n.GetTime())
		case n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_IPC && !n.Host:
			space := &imagepb.IPCNamespace{}
			err = ipc(dir, space)
			n.Detail = &imagepb.Namespace_Ipc{Ipc: space}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// highest is the highest number of a task.
func highest(p *imagepb.Processes) (n int32) {
	for _, one := range p.GetProcesses() {
		n = max(n, one.Pid)
		for _, t := range one.Tasks {
			n = max(n, t.Tid)
		}
	}
	return n
}

// Prepare does beforehand what Complete need not do while somebody waits for it.
func Prepare() error {
	_, err := proto.Marshal(&imagepb.Namespaces{Namespaces: []*imagepb.Namespace{
		{Detail: &imagepb.Namespace_Uts{Uts: &imagepb.UTSNamespace{}}},
		{Detail: &imagepb.Namespace_User{User: &imagepb.UserNamespace{UidMap: []*imagepb.IDRange{{}}}}},
		{Detail: &imagepb.Namespace_Time{Time: &imagepb.TimeNamespace{Monotonic: &imagepb.ClockOffset{}}}},
		{Detail: &imagepb.Namespace_Cgroup{Cgroup: &imagepb.CgroupNamespace{Paths: map[string]string{"": "/"}}}},
		{Detail: &imagepb.Namespace_Pid{Pid: &imagepb.PIDNamespace{}}},
		{Detail: &imagepb.Namespace_Ipc{Ipc: &imagepb.IPCNamespace{Sysctls: map[string]string{"kernel/shmmax": "1"}}}},
		{Detail: &imagepb.Namespace_Network{Network: &imagepb.NetworkNamespace{
			Attachment: &imagepb.Attachment{Ports: []*imagepb.PublishedPort{{}}}, Links: []*imagepb.Link{{}}, Addresses: []*imagepb.Message{{}},
		}}},
	}})
	return errors.Join(err, criufile.Prepare[times]("timens-1"), criufile.Prepare[variables]("ipcns-var-1"))
}

// directory is one of CRIU's files.
type directory struct {
	path  string
	names []string
}

func open(path string) (directory, error) {
	f, err := os.Open(path)
	if err != nil {
		return directory{}, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return directory{path, names}, err
}

// load reads the only file of a kind, or none.
func load[T any](d directory, prefix string) ([]T, error) {
	for _, name := range d.names {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, ".img") {
			return criufile.Load[T](filepath.Join(d.path, name))
		}
	}
	return nil, nil
}

type times struct {
	Monotonic clock `criu:"monotonic"`
	Boottime  clock `criu:"boottime"`
}

type clock struct {
	Sec  int64 `criu:"tv_sec"`
	Nsec int64 `criu:"tv_nsec"`
}

func (c clock) ns() int64 { return c.Sec*1e9 + c.Nsec }

func clocks(dir directory, t *imagepb.TimeNamespace) error {
	all, err := load[times](dir, "timens-")
	if err != nil || len(all) == 0 {
		return err
	}
	t.MonotonicNs, t.BoottimeNs = all[0].Monotonic.ns(), all[0].Boottime.ns()
	return nil
}

type variables struct {
	Semaphores    []uint32 `criu:"sem_ctls"`
	MsgMax        uint32   `criu:"msg_ctlmax"`
	MsgMnb        uint32   `criu:"msg_ctlmnb"`
	MsgMni        uint32   `criu:"msg_ctlmni"`
	ShmMax        uint64   `criu:"shm_ctlmax"`
	ShmAll        uint64   `criu:"shm_ctlall"`
	ShmMni        uint32   `criu:"shm_ctlmni"`
	ShmRmid       uint32   `criu:"shm_rmid_forced"`
	QueuesMax     uint32   `criu:"mq_queues_max"`
	QueueMsgMax   uint32   `criu:"mq_msg_max"`
	QueueSizeMax  uint32   `criu:"mq_msgsize_max"`
	QueueMsgUsual *uint32  `criu:"mq_msg_default"`
	QueueUsual    *uint32  `criu:"mq_msgsize_default"`
}

type object struct {
	ID   uint32 `criu:"id"`
	Key  uint32 `criu:"key"`
	UID  uint32 `criu:"uid"`
	GID  uint32 `criu:"gid"`
	CUID uint32 `criu:"cuid"`
	CGID uint32 `criu:"cgid"`
	Mode uint32 `criu:"mode"`
}

func (o object) proto(size uint64) *imagepb.IPCObject {
	return &imagepb.IPCObject{Id: o.ID, Key: o.Key, Uid: o.UID, Gid: o.GID, CreatorUid: o.CUID, CreatorGid: o.CGID, Mode: o.Mode, Size: size}
}

type memory struct {
	Object object `criu:"desc"`
	Size   uint64 `criu:"size"`
}

type semaphores struct {
	Object object `criu:"desc"`
	Number uint32 `criu:"nsems"`
}

type queue struct {
	Object object `criu:"desc"`
	Limit  uint32 `criu:"qbytes"`
	Number uint32 `criu:"qnum"`
}

func ipc(dir directory, n *imagepb.IPCNamespace) error {
	vars, err := load[variables](dir, "ipcns-var-")
	if err != nil {
		return err
	}
	for _, v := range vars {
		n.Sysctls = v.sysctls()
	}
	segments, err := load[memory](dir, "ipcns-shm-")
	if err != nil {
		return err
	}
	for _, s := range segments {
		n.SharedMemory = append(n.SharedMemory, s.Object.proto(s.Size))
	}
	sets, err := load[semaphores](dir, "ipcns-sem-")
	if err != nil {
		return err
	}
	for _, s := range sets {
		n.Semaphores = append(n.Semaphores, s.Object.proto(uint64(s.Number)))
	}
	queues, err := load[queue](dir, "ipcns-msg-")
	if err != nil {
		return err
	}
	for _, q := range queues {
		o := q.Object.proto(uint64(q.Number))
		o.LimitBytes = q.Limit
		n.MessageQueues = append(n.MessageQueues, o)
	}
	return nil
}

func (v variables) sysctls() map[string]string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var sem []string
	for _, n := range v.Semaphores {
		sem = append(sem, number(uint64(n)))
	}
	all := map[string]string{
		"kernel/sem": strings.Join(sem, "\t"), "kernel/msgmax": number(uint64(v.MsgMax)), "kernel/msgmnb": number(uint64(v.MsgMnb)),
		"kernel/msgmni": number(uint64(v.MsgMni)), "kernel/shmmax": number(v.ShmMax), "kernel/shmall": number(v.ShmAll), "kernel/shmmni": number(uint64(v.ShmMni)),
		"kernel/shm_rmid_forced": number(uint64(v.ShmRmid)), "fs/mqueue/queues_max": number(uint64(v.QueuesMax)),
		"fs/mqueue/msg_max": number(uint64(v.QueueMsgMax)), "fs/mqueue/msgsize_max": number(uint64(v.QueueSizeMax)),
	}
	if v.QueueMsgUsual != nil {
		all["fs/mqueue/msg_default"] = number(uint64(*v.QueueMsgUsual))
	}
	if v.QueueUsual != nil {
		all["fs/mqueue/msgsize_default"] = number(uint64(*v.QueueUsual))
	}
	return all
}
