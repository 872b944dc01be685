package criufile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// imageDesc is CRIU's list, criu/image-desc.c of 4.2.1 and 4.3: each kind and the
// name of its files, as printf(3) makes it.
const imageDesc = `
INVENTORY inventory           FDINFO fdinfo-7             PAGEMAP pagemap-7
SHMEM_PAGEMAP pagemap-shmem-7 REG_FILES reg-files         EXT_FILES ext-files
NS_FILES ns-files             EVENTFD_FILE eventfd        EVENTPOLL_FILE eventpoll
EVENTPOLL_TFD eventpoll-tfd   SIGNALFD signalfd           INOTIFY_FILE inotify
INOTIFY_WD inotify-wd         FANOTIFY_FILE fanotify      FANOTIFY_MARK fanotify-mark
CORE core-7                   IDS ids-7                   MM mm-7
VMAS vmas-7                   PIPES pipes                 PIPES_DATA pipes-data
FIFO fifo                     FIFO_DATA fifo-data         PSTREE pstree
SIGACT sigacts-7              UNIXSK unixsk               INETSK inetsk
PACKETSK packetsk             NETLINK_SK netlinksk        SK_QUEUES sk-queues
ITIMERS itimers-7             POSIX_TIMERS posix-timers-7 CREDS creds-7
UTSNS utsns-7                 IPC_VAR ipcns-var-7         IPCNS_SHM ipcns-shm-7
IPCNS_MSG ipcns-msg-7         IPCNS_SEM ipcns-sem-7       FS fs-7
REMAP_FPATH remap-fpath       GHOST_FILE ghost-file-a7    MEMFD_INODE memfd
TCP_STREAM tcp-stream-a7      MNTS mountpoints-7          NETDEV netdev-7
NETNS netns-7                 IFADDR ifaddr-7             ROUTE route-7
ROUTE6 route6-7               RULE rule-7                 IPTABLES iptables-7
IP6TABLES ip6tables-7         NFTABLES nftables-7         TMPFS_IMG tmpfs-7.tar.gz
TMPFS_DEV tmpfs-dev-7.tar.gz  AUTOFS autofs-7             BINFMT_MISC_OLD binfmt-misc-7
BINFMT_MISC binfmt-misc       TTY_FILES tty               TTY_INFO tty-info
TTY_DATA tty-data             FILE_LOCKS filelocks        RLIMIT rlimit-7
PAGES pages-7                 PAGES_OLD pages-7           SHM_PAGES_OLD pages-shmem-7
SIGNAL signal-s-7             PSIGNAL signal-p-7          TUNFILE tunfile
CGROUP cgroup                 TIMERFD timerfd             CPUINFO cpuinfo
SECCOMP seccomp               USERNS userns-7             NETNF_CT netns-ct-7
NETNF_EXP netns-exp-7         FILES files                 TIMENS timens-7
PIDNS pidns-7                 BPFMAP_FILE bpfmap-file     BPFMAP_DATA bpfmap-data
APPARMOR apparmor             PIDFD pidfd                 STATS stats-dump
IRMAP_CACHE irmap-cache`

// rawKinds are those whose magic number is RAW_IMAGE_MAGIC (criu/include/magic.h)
// and those of before CRIU 1.0, whose pages were in files with entries.
const rawKinds = ` IFADDR ROUTE ROUTE6 RULE IPTABLES IP6TABLES NFTABLES TMPFS_IMG TMPFS_DEV PAGES PAGES_OLD SHM_PAGES_OLD NETNF_CT NETNF_EXP `

// Every kind of CRIU's is either decoded or said to be raw.
func TestEveryKind(t *testing.T) {
	words := strings.Fields(imageDesc)
	if len(words) != 2*85 {
		t.Fatalf("the list has %d words", len(words))
	}
	for n := 0; n < len(words); n += 2 {
		name, file := words[n], words[n+1]
		var found *Kind
		for _, k := range Kinds() {
			if k.names(file + ".img") {
				if found != nil {
					t.Errorf("%s: two kinds have files %s", name, file)
				}
				found = &k
			}
		}
		if found == nil {
			t.Errorf("%s: no kind has files %s", name, file)
			continue
		}
		if raw := strings.Contains(rawKinds, " "+name+" "); raw != found.Raw() || raw != (found.Text != "") {
			t.Errorf("%s: raw is %v, text %q", name, found.Raw(), found.Text)
		}
		if found.Raw() {
			continue
		}
		for _, m := range []string{found.messageOf(1), found.messageOf(2)} {
			if _, err := messageNamed(m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Every kind comes back, whatever the entries hold, also fields that no CRIU
// has today.
func TestEveryKindLossless(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, k := range Kinds() {
		for round := range 20 {
			if k.Raw() {
				continue
			}
			head := []head{k.head, headNone, headCommon, headService}[round%4]
			want := anyFile(t, random, k, head)
			f, err := NewFile(bytes.NewReader(want), int64(len(want)), strings.ReplaceAll(k.File, "%", ""))
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := f.Decode(t.Context(), &text, DecodeOptions{Indent: round%2 == 0}); err != nil {
				t.Fatalf("%s: %v", k.Name, err)
			}
			if got := encode(t, text.Bytes()); !bytes.Equal(got, want) {
				t.Fatalf("%s: other bytes come back:\n%x\n%x\nof\n%s", k.Name, got, want, text.String())
			}
			if strings.Contains(text.String(), "@wire") {
				t.Fatalf("%s: something usual is not known:\n%s", k.Name, text.String())
			}
		}
	}
}

// anyFile makes a file with two or three entries.
func anyFile(t *testing.T, random *rand.Rand, k Kind, h head) []byte {
	t.Helper()
	var b []byte
	if h != headNone {
		b = binary.LittleEndian.AppendUint32(b, map[head]uint32{headCommon: magicCommon, headService: magicService}[h])
	}
	b = binary.LittleEndian.AppendUint32(b, k.Magic)
	rest := false
	for n := 1; n <= 2+random.IntN(2) && !rest; n++ {
		of, err := messageNamed(k.messageOf(n))
		if err != nil {
			t.Fatal(err)
		}
		m := anyMessage(random, of, 0)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m))), m...)
		switch size, err := payloadSize(of, m); {
		case err != nil:
			t.Fatal(err)
		case k.payload == payloadMessages:
			for range numberIn(of, m, "qnum") {
				one, _ := messageNamed("ipc_msg")
				m := anyMessage(random, one, 0)
				b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m))), m...)
				b = append(b, anyBytes(random, int(roundUp(numberIn(one, m, "msize"), 8)))...)
			}
		case k.payload == payloadNone:
		case size == restOfFile:
			b, rest = append(b, anyBytes(random, 1000)...), true
		default:
			b = append(b, anyBytes(random, int(size))...)
		}
	}
	return b
}

// anyMessage fills most fields, and some that do not exist.
func anyMessage(random *rand.Rand, of *message, level int) (b []byte) {
	for _, f := range of.byNumber {
		if f == nil || random.IntN(8) == 0 || level > 5 {
			continue
		}
		count := 1
		if f.repeated {
			count = random.IntN(4)
		}
		var packed []byte
		for range count {
			v := anyValue(random, f, level)
			if f.packed {
				packed = append(packed, v...)
				continue
			}
			b = append(protowire.AppendTag(b, f.number, f.kind.wire()), v...)
		}
		if packed != nil {
			b = protowire.AppendBytes(protowire.AppendTag(b, f.number, protowire.BytesType), packed)
		}
	}
	if random.IntN(3) == 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 5001, protowire.VarintType), random.Uint64())
		b = protowire.AppendFixed32(protowire.AppendTag(b, 5001, protowire.Fixed32Type), random.Uint32())
		b = protowire.AppendFixed64(protowire.AppendTag(b, 5002, protowire.Fixed64Type), random.Uint64())
		b = protowire.AppendBytes(protowire.AppendTag(b, 5003, protowire.BytesType), anyBytes(random, 9))
	}
	return b
}

func anyValue(random *rand.Rand, f *field, level int) []byte {
	u := random.Uint64() >> random.IntN(64)
	switch f.name { // which say how long the payload is
	case "bytes", "length", "len", "keys_bytes", "values_bytes", "inq_len", "outq_len", "nsems", "msize", "size":
		u %= 3000
	case "qnum":
		u %= 5
	}
	switch f.kind {
	case kindMessage:
		return protowire.AppendBytes(nil, anyMessage(random, f.message, level+1))
	case kindString, kindBytes:
		return protowire.AppendBytes(nil, anyBytes(random, random.IntN(20)))
	case kindFixed32, kindSfixed32:
		return protowire.AppendFixed32(nil, uint32(u))
	case kindFixed64, kindSfixed64:
		return protowire.AppendFixed64(nil, u)
	case kindBool:
		u %= 2
	case kindUint32, kindSint32:
		u = uint64(uint32(u))
	case kindInt32:
		u = uint64(int64(int32(u)))
	case kindEnum:
		u %= 30
	}
	return protowire.AppendVarint(nil, u)
}

func anyBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.IntN(256 >> random.IntN(2)))
	}
	return b
}

// A pipe's file and a socket's have others' names as a beginning.
func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"pages-1.img": "PAGES", "pages-shmem-1.img": "SHM_PAGES_OLD", "tmpfs-dev-3.tar.gz.img": "TMPFS_DEV",
		"tmpfs-3.tar.gz.img": "TMPFS_IMG", "pages-x.img": "", "pages-.img": "", "pagemap-1.img": "", "route-9.img": "ROUTE",
		"amdgpu-kfd-4.img": "AMDGPU",
	} {
		k, _ := rawKind(filepath.Base(name))
		if k.Name != want {
			t.Errorf("%s is raw kind %q, want %q", name, k.Name, want)
		}
	}
}

func TestSchemaIsCRIU43(t *testing.T) {
	for _, path := range []string{"core-x86.user_x86_xsave_entry", "pagemap.pagemap_blocks", "sk-packet.sk_ucred_entry", "pidfd.pidfd_entry"} {
		_, name, _ := strings.Cut(path, ".")
		if _, err := messageNamed(name); err != nil {
			t.Error(fmt.Errorf("%s: %w", path, err))
		}
	}
}
