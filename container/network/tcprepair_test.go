package network

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// savedTCP is what a connection with empty queues needs.
type savedTCP struct {
	local, remote unix.Sockaddr
	sendSeq       int
	receiveSeq    int
	timestamp     int
	mss           int
	scales        byte // ours in the high half, the peer's in the low
}

const (
	receiveQueue, sendQueue = 1, 2 // include/uapi/linux/tcp.h, tcp_queue
)

func saveTCP(t *testing.T, f *os.File) (s savedTCP) {
	t.Helper()
	fd := int(f.Fd())
	get := func(opt int) int {
		v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, opt)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	set := func(opt, v int) {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, v); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.TCP_REPAIR, 1)
	set(unix.TCP_REPAIR_QUEUE, sendQueue)
	s.sendSeq = get(unix.TCP_QUEUE_SEQ)
	set(unix.TCP_REPAIR_QUEUE, receiveQueue)
	s.receiveSeq = get(unix.TCP_QUEUE_SEQ)
	s.timestamp = get(unix.TCP_TIMESTAMP)
	s.mss = get(unix.TCP_MAXSEG)
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	s.scales = (*[8]byte)(unsafe.Pointer(info))[6] // tcpi_snd_wscale, tcpi_rcv_wscale: bit fields
	if s.local, err = unix.Getsockname(fd); err != nil {
		t.Fatal(err)
	}
	if s.remote, err = unix.Getpeername(fd); err != nil {
		t.Fatal(err)
	}
	return s
}

func restoreTCP(t *testing.T, ns *os.File, s savedTCP) *os.File {
	t.Helper()
	fd := -1
	step := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	set := func(opt, v int) {
		t.Helper()
		step(fmt.Sprint("option ", opt), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, v))
	}
	err := Do(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	step("socket", err)
	set(unix.TCP_REPAIR, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	set(unix.TCP_REPAIR_QUEUE, sendQueue)
	set(unix.TCP_QUEUE_SEQ, s.sendSeq)
	set(unix.TCP_REPAIR_QUEUE, receiveQueue)
	set(unix.TCP_QUEUE_SEQ, s.receiveSeq)
	step("bind", unix.Bind(fd, s.local))
	step("connect", unix.Connect(fd, s.remote))
	// struct tcp_repair_opt: TCPOPT_MSS 2, WINDOW 3, SACK_PERM 4, TIMESTAMP 8
	scale := uint32(s.scales&15) | uint32(s.scales>>4)<<16
	for _, opt := range [][2]uint32{{2, uint32(s.mss)}, {3, scale}, {4, 0}, {8, 0}} {
		b := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, opt[0]), opt[1])
		step("repair options", unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(b)))
	}
	set(unix.TCP_TIMESTAMP, s.timestamp)
	set(unix.TCP_REPAIR, 0)
	unix.SetNonblock(fd, true)
	f := os.NewFile(uintptr(fd), "moved")
	t.Cleanup(func() { f.Close() })
	return f
}
