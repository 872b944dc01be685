package network

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

// TestFrozenServer shows what clients feel while a server is frozen and cut off
// for a while, with the frames dropped and with them parked. The first is the
// proof that the second shows something.
//
// One client sends a line each millisecond, another a single line into the
// outage: nothing that it sends later tells its kernel that one got lost. If it
// did get lost, the kernel sends it again after 200 ms. On a busy machine the
// outage may last as long, so the parked line has several tries.
func TestFrozenServer(t *testing.T) {
	testenv.Root(t)
	t.Run("parked=false", func(t *testing.T) {
		if again := outage(t, false); again == 0 {
			t.Error("a dropped frame was not sent again: the parked case proves nothing")
		}
	})
	t.Run("parked=true", func(t *testing.T) {
		const tries = 10
		for i := range tries {
			arrived := false
			t.Run(strconv.Itoa(i), func(t *testing.T) { arrived = outage(t, true) == 0 })
			if arrived || t.Failed() {
				return
			}
		}
		t.Errorf("in %d tries, no parked frame came before its sender sent it again", tries)
	})
}

// outage says how often a line was sent again that was sent into an outage.
func outage(t *testing.T, parked bool) (again uint32) {
	const length = 100 * time.Millisecond
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	server := startEcho(t, ns)
	var conns [2]net.Conn
	for i := range conns {
		c, err := dialFrom(nil, a.Address.Addr().String()+":80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	ping := startPinger(conns[0])
	single := bufio.NewReader(conns[1])
	fmt.Fprintln(conns[1], "first")
	if line, err := single.ReadString('\n'); err != nil || line != "first\n" {
		t.Fatal(line, err)
	}

	var p *Parking
	var err error
	lap := stopwatch()
	if parked {
		if p, err = a.Park(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("park %s", lap())
	}
	freeze(t, server)
	lap()
	if parked {
		err = p.Start(ctx)
	} else {
		err = hostSocket(t).do(setPortState(a.HostIndex, portListening))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start %s", lap())
	before := retransmissions(t, conns[1])
	fmt.Fprintln(conns[1], "second")
	time.Sleep(length)
	server.Signal(syscall.SIGCONT)
	lap()
	if parked {
		d, err := p.Deliver(ctx, a)
		if err != nil || d.Frames == 0 || d.Lost != 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		t.Logf("deliver %+v", d)
	} else if err := a.Activate(ctx); err != nil {
		t.Fatal(err)
	}
	conns[1].SetReadDeadline(deadline())
	if line, err := single.ReadString('\n'); err != nil || line != "second\n" {
		t.Fatal(line, err)
	}
	again = retransmissions(t, conns[1]) - before
	late := lap()
	ping.end(t)
	p.Close()
	t.Logf("the single line came back %s after the outage, sent again %d times; longest gap %s of %d echoes", late, again, ping.longest, ping.count)
	return again
}

func retransmissions(t *testing.T, c net.Conn) uint32 {
	t.Helper()
	info, err := tcpInfo(c.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	return info.Total_retrans
}

// freeze stops a process and waits until it has stopped.
func freeze(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v, %v", status, err)
	}
}

func stopwatch() func() time.Duration {
	last := time.Now()
	return func() time.Duration {
		d := time.Since(last)
		last = time.Now()
		return d
	}
}

// While a container is away the stand-in's kernel answers for it: ARP, and
// nothing else.
func TestStandIn(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	b, ns2 := attach(t, named(o, "peer"))
	ip := a.Address.Addr().String()
	p, err := a.Park(ctx)
	if err != nil {
		t.Fatal(err)
	}
	listenIn(t, ns, "tcp4", ":80")
	mustEcho(t, ns2, ip+":80") // prepared, but not started: nothing has changed
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	flushNeighbours(t, ns2)
	for _, port := range []string{":80", ":81"} {
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		var c net.Conn
		err := Do(ns2, func() (err error) { c, err = d.Dial("tcp4", ip+port); return err })
		if err == nil {
			c.Close()
			t.Fatal("somebody answered for a parked container")
		}
		if e, ok := err.(net.Error); !ok || !e.Timeout() {
			t.Fatalf("want silence, got %v", err)
		}
	}
	if mac := neighbour(t, ns2, a.Address.Addr()); mac != a.MAC {
		t.Errorf("ARP for the parked container gave %s, want %s", mac, a.MAC)
	}
	// What the container itself sends does not turn the bridge back to it.
	if err := a.Activate(ctx); err != nil {
		t.Fatal(err)
	}
	if err := Do(ns, func() error { return sendUDP(b.Address.Addr().String() + ":9") }); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Timeout: 300 * time.Millisecond}
	err = Do(ns2, func() error {
		c, err := d.Dial("tcp4", ip+":80")
		if err == nil {
			c.Close()
		}
		return err
	})
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("a frame got past the stand-in: %v", err)
	}
	// The lease is alive although the container's end is gone.
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	hostSocket(t).do(deleteLink(a.HostLink))
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Leases)+len(s.Bridges) != 0 {
		t.Errorf("swept away under a parked container: %+v, %v", s, err)
	}
	o.NS = newNS(t)
	o.Config.Address = a.Address
	if _, err := Attach(ctx, named(o, "thief")); err == nil || !strings.Contains(err.Error(), "already used by container web") {
		t.Errorf("a parked container's address: %v", err)
	}
	// Whoever holds the parking dies.
	p.Close()
	awaitGone(t, p.StandIn)
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Leases) != 1 {
		t.Errorf("swept %+v, %v", s, err)
	}
}

// A command that parked and was killed: the container goes on by Activate.
func TestParkingDies(t *testing.T) {
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	listenIn(t, ns, "tcp4", ":80")
	p, err := a.Park(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p.Close()
	awaitGone(t, p.StandIn)
	if err := a.Activate(ctx); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, nil, a.Address.Addr().String()+":80")

	p, err = a.Park(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	if err := a.Activate(ctx); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, nil, a.Address.Addr().String()+":80")
}

// A TCP connection goes from one namespace to a fresh one, while the client
// talks, and another process delivers what was parked. The socket is carried as
// CRIU carries it: by TCP_REPAIR.
func TestMoveConnection(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	address := a.Address.Addr().String() + ":80"
	var listener net.Listener
	err := Do(ns, func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		listener, err = lc.Listen(ctx, "tcp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := dialFrom(nil, address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	server, err := served.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	fmt.Fprint(client, "one ")
	readFull(t, server, "one ")

	p, err := a.Park(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// What the other process gets: it need not know that it has begun.
	parking, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	lap := stopwatch()
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(client, "two ") // while nobody is there
	saved := saveTCP(t, server)
	server.Close() // in repair mode: says nothing to the peer
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	ns.Close()

	o.NS, o.Quiet, o.Config.Address = newNS(t), true, a.Address
	b, ns2 := attach(t, named(o, "web"))
	if b.MAC != a.MAC || b.HostLink == a.HostLink {
		t.Errorf("%+v\n%+v", a, b)
	}
	t.Logf("attached again after %s", lap())
	// It knows the host's MAC. If it had to ask, its first request would go out
	// while the host end is quiet, and the next a second later.
	if mac := neighbour(t, ns2, b.Gateway); mac != b.GatewayMAC {
		t.Errorf("the host's MAC is %s to the moved side, want %s", mac, b.GatewayMAC)
	}
	moved := restoreTCP(t, ns2, saved)
	fmt.Fprint(client, "three ")
	t.Logf("socket after %s", lap())
	t.Log(deliverElsewhere(t, p, parking, b))
	t.Logf("delivered after %s", lap())
	readFull(t, moved, "two three ")
	fmt.Fprint(moved, "back")
	client.SetReadDeadline(deadline())
	answer := make([]byte, 4)
	if _, err := io.ReadFull(client, answer); err != nil || string(answer) != "back" {
		t.Fatalf("%q, %v", answer, err)
	}
	t.Logf("answered %s after the delivery, with %d retransmissions", lap(), retransmissions(t, client))
}

func tcpInfo(c *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info, err
}

func readFull(t *testing.T, f *os.File, want string) {
	t.Helper()
	b := make([]byte, len(want))
	f.SetReadDeadline(deadline())
	if _, err := io.ReadFull(f, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func sendUDP(to string) error {
	c, err := net.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err
}

func flushNeighbours(t *testing.T, ns *os.File) {
	t.Helper()
	err := Do(ns, func() error {
		s, err := dial(0)
		if err != nil {
			return err
		}
		defer s.Close()
		r, info := linkMessage(unix.RTM_NEWLINK, 0, 0, containerIndex)
		info.Change = unix.IFF_NOARP
		info.Flags = unix.IFF_NOARP
		q, back := linkMessage(unix.RTM_NEWLINK, 0, 0, containerIndex)
		back.Change = unix.IFF_NOARP
		return s.do(r, q)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func neighbour(t *testing.T, ns *os.File, ip netip.Addr) (mac MAC) {
	t.Helper()
	s, err := dialIn(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.list(dump(unix.RTM_GETNEIGH, 12))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		var dst netip.Addr
		var m MAC
		eachAttr(r.data[12:], func(kind uint16, v []byte) {
			switch kind {
			case unix.NDA_DST:
				dst, _ = netip.AddrFromSlice(v)
			case unix.NDA_LLADDR:
				copy(m[:], v)
			}
		})
		if dst == ip {
			mac = m
		}
	}
	return mac
}

func BenchmarkParking(b *testing.B) {
	o := newHost(b)
	a, _ := attach(b, named(o, "web"))
	var took [4]time.Duration
	for range b.N {
		lap := stopwatch()
		p, err := a.Park(ctx)
		if err != nil {
			b.Fatal(err)
		}
		took[0] += lap()
		if err := p.Start(ctx); err != nil {
			b.Fatal(err)
		}
		took[1] += lap()
		if _, err := p.Deliver(ctx, a); err != nil {
			b.Fatal(err)
		}
		took[2] += lap()
		p.Close()
		took[3] += lap()
		awaitGone(b, p.StandIn)
	}
	for i, name := range []string{"park", "start", "deliver", "close"} {
		b.ReportMetric(float64(took[i].Microseconds())/float64(b.N), name+"-us/op")
	}
}

func BenchmarkRebuild(b *testing.B) {
	o := newHost(b)
	a, ns := attach(b, named(o, "web"))
	saved, err := Save(ns)
	if err != nil {
		b.Fatal(err)
	}
	_ = a
	o.Like, o.NewAddress = saved, true
	for range b.N {
		b.StopTimer()
		o.NS = newNS(b)
		c, err := Attach(ctx, named(o, "clone"))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := Rebuild(o.NS, saved, RebuildOptions{Attachment: c}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Detach(ctx)
		o.NS.Close()
	}
}

func BenchmarkSweep(b *testing.B) {
	for range b.N {
		b.StopTimer()
		o := newHost(b)
		a, ns := attach(b, named(o, "web"))
		a.Detach(ctx)
		ns.Close()
		awaitGone(b, a.HostLink)
		b.StartTimer()
		if _, err := Sweep(ctx, o.Root); err != nil {
			b.Fatal(err)
		}
	}
}
