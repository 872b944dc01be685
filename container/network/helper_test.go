package network

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// helper is what the test binary does instead of testing, in a process of its
// own: one that can be frozen, and one that parked frames are handed to.
const helperEnv = "CRUCIBLE_TEST_NETWORK_HELPER"

func runHelper(what string) error {
	switch what {
	case "echo":
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(ctx, "tcp4", ":80")
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	case "deliver":
		p, err := OpenParking([]*os.File{os.NewFile(3, "parking")}, []byte(os.Getenv("PARKING")))
		if err != nil {
			return err
		}
		var to Attachment
		if err := json.Unmarshal([]byte(os.Getenv("TO")), &to); err != nil {
			return err
		}
		d, err := p.Deliver(ctx, &to)
		p.Close()
		fmt.Printf("%+v\n", d)
		return err
	}
	return fmt.Errorf("no helper %q", what)
}

// startEcho starts the echo server as a process in the namespace.
func startEcho(t *testing.T, ns *os.File) *os.Process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=echo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := Do(ns, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("echo server said %q, %v", line, err)
	}
	return cmd.Process
}

// A pinger sends a counted line every millisecond, whether or not the last came
// back, and notes the longest pause between two echoes: what a client feels.
type pinger struct {
	c       net.Conn
	stop    chan struct{}
	done    chan error
	longest time.Duration
	count   int
}

func startPinger(c net.Conn) *pinger {
	p := &pinger{c: c, stop: make(chan struct{}), done: make(chan error, 2)}
	c.SetDeadline(time.Now().Add(2 * patience))
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-p.stop:
				p.done <- c.(*net.TCPConn).CloseWrite()
				return
			case <-tick.C:
			}
			if _, err := fmt.Fprintf(c, "ping %d\n", i); err != nil {
				p.done <- err
				return
			}
		}
	}()
	go func() {
		r := bufio.NewReader(c)
		last := time.Now()
		for ; ; p.count++ {
			got, err := r.ReadString('\n')
			if err == io.EOF && got == "" {
				p.done <- nil
				return
			}
			if want := fmt.Sprintf("ping %d\n", p.count); err != nil || got != want {
				p.done <- fmt.Errorf("got %q, want %q: %w", got, want, err)
				return
			}
			p.longest, last = max(p.longest, time.Since(last)), time.Now()
		}
	}()
	return p
}

func (p *pinger) end(t *testing.T) {
	t.Helper()
	close(p.stop)
	for range 2 {
		if err := <-p.done; err != nil {
			t.Fatal(err)
		}
	}
}

// deliverElsewhere hands the parking to another process and lets it deliver.
func deliverElsewhere(t *testing.T, p *Parking, parking []byte, to *Attachment) string {
	t.Helper()
	target, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=deliver", "PARKING="+string(parking), "TO="+string(target))
	cmd.ExtraFiles = p.Files()
	out, err := cmd.CombinedOutput()
	p.Close()
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return string(out)
}
