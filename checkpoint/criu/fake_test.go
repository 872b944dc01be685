package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"crucible/container/testenv"
)

// fake makes a CRIU of this test binary: what a conversation can come to is
// tested with it, without root.
func fake(t *testing.T, mode string) *CRIU {
	t.Helper()
	self, err := os.Executable()
	fatal(t, err)
	path := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf("#!/bin/sh\n%s=fake:%s exec %s \"$@\"\n", workEnv, mode, self)
	fatal(t, os.WriteFile(path, []byte(script), 0o755))
	return &CRIU{Path: path}
}

// runFake is the fake CRIU's main.
func runFake(mode string) int {
	const sock = 3
	if mode == "no-library" {
		fmt.Fprintln(os.Stderr, "criu: error while loading shared libraries: libnl-3.so.200: cannot open shared object file: No such file or directory")
		return 127
	}
	for {
		req := &rpc.CriuReq{}
		if _, err := recvMessage(sock, req); err != nil {
			return 1
		}
		if req.GetType() == rpc.CriuReqType_VERSION {
			v := &rpc.CriuVersion{MajorNumber: proto.Int32(4), MinorNumber: proto.Int32(2), Sublevel: proto.Int32(1)}
			_ = sendMessage(sock, &rpc.CriuResp{Type: req.Type, Success: proto.Bool(true), Version: v})
			continue
		}
		if ok := fakeMode(sock, mode, req); !ok {
			return 1
		}
		if !req.GetKeepOpen() {
			return 0
		}
	}
}

func fakeMode(sock int, mode string, req *rpc.CriuReq) bool {
	resp := &rpc.CriuResp{Type: req.Type, Success: proto.Bool(true)}
	switch mode {
	case "dies":
		fmt.Fprintln(os.Stderr, "BUG at criu/mem.c:1")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "hangs":
		_ = unix.Pause()
	case "large":
		resp.CrErrmsg = proto.String(strings.Repeat("x", 150<<10))
	case "externals":
		resp.CrErrmsg = proto.String(fmt.Sprint(len(req.GetOpts().GetExternal())))
	case "file":
		r, w, _ := os.Pipe()
		_, _ = w.WriteString("hello")
		w.Close()
		note := &rpc.CriuResp{Type: rpc.CriuReqType_NOTIFY.Enum(), Success: proto.Bool(true), Notify: &rpc.CriuNotify{Script: proto.String(OrphanPTSMaster)}}
		packet, _ := proto.Marshal(note)
		_ = unix.Sendmsg(sock, packet, unix.UnixRights(int(r.Fd())), nil, 0)
		_, _ = recvMessage(sock, &rpc.CriuReq{})
	case "events":
		for _, script := range []string{PreDump, "one-of-tomorrow", PostDump, NetworkUnlock} {
			_ = sendMessage(sock, &rpc.CriuResp{Type: rpc.CriuReqType_NOTIFY.Enum(), Success: proto.Bool(true), Notify: &rpc.CriuNotify{Script: &script}})
			word := &rpc.CriuReq{}
			_, _ = recvMessage(sock, word)
			if !word.GetNotifySuccess() {
				resp.Success = proto.Bool(false)
				resp.CrErrmsg = proto.String("noise")
				break
			}
		}
	case "garbage":
		_, _ = unix.Write(sock, []byte("\xff\xff\xff"))
		return true
	}
	return sendMessage(sock, resp) == nil
}

// do makes one request of a dump and leads it to its end.
func do(ctx context.Context, p *Process, opts *rpc.CriuOpts, notify func(Event) error) (*rpc.CriuResp, error) {
	out, err := p.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_DUMP.Enum(), Opts: opts}, notify, 0)
	if err != nil {
		return nil, err
	}
	if !out.ok() {
		return nil, p.explain("dump", out, nil)
	}
	return out.resp, nil
}

func TestConversation(t *testing.T) {
	start := func(t *testing.T, mode string) *Process {
		p, err := fake(t, mode).Start(t.Context(), StartOptions{})
		fatal(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	opts := func() *rpc.CriuOpts { return &rpc.CriuOpts{ImagesDirFd: proto.Int32(0)} }

	t.Run("version first, on the same connection", func(t *testing.T) {
		p := start(t, "plain")
		v, err := p.Version(t.Context())
		if err != nil || v != (Version{4, 2, 1}) {
			t.Fatalf("version %v, %v", v, err)
		}
		if _, err := do(t.Context(), p, opts(), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("a process group and an environment of its own", func(t *testing.T) {
		t.Setenv("LD_LIBRARY_PATH", "/nowhere")
		p := start(t, "plain")
		_, err := p.Version(t.Context())
		fatal(t, err)
		if pgid, err := unix.Getpgid(p.Pid()); err != nil || pgid != p.Pid() {
			t.Errorf("group %d of %d: %v", pgid, p.Pid(), err)
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid()))
		if err != nil || strings.Contains(string(env), "LD_LIBRARY_PATH") || !strings.Contains(string(env), "/usr/sbin") {
			t.Errorf("%q %v", env, err)
		}
	})
	t.Run("an answer larger than any buffer one would guess", func(t *testing.T) {
		resp, err := do(t.Context(), start(t, "large"), opts(), nil)
		if err != nil || len(resp.GetCrErrmsg()) != 150<<10 {
			t.Errorf("%d bytes, %v", len(resp.GetCrErrmsg()), err)
		}
	})
	t.Run("a request of 300 KiB", func(t *testing.T) {
		o := opts()
		for i := range 10000 {
			o.External = append(o.External, fmt.Sprintf("mnt[/a/path/of/some/length/%d]:k", i))
		}
		resp, err := do(t.Context(), start(t, "externals"), o, nil)
		if errors.Is(err, unix.EMSGSIZE) && os.Geteuid() != 0 {
			testenv.Skip(t, "the send buffer is limited, and only root may pass the limit")
		}
		if err != nil || resp.GetCrErrmsg() != "10000" {
			t.Errorf("%v %v", resp.GetCrErrmsg(), err)
		}
	})
	t.Run("a descriptor comes with an event", func(t *testing.T) {
		var kept, left *os.File
		_, err := do(t.Context(), start(t, "file"), opts(), func(e Event) error {
			kept, e.Files[0] = e.Files[0], nil
			return nil
		})
		fatal(t, err)
		if text, _ := io.ReadAll(kept); string(text) != "hello" {
			t.Errorf("read %q", text)
		}
		kept.Close()
		_, err = do(t.Context(), start(t, "file"), opts(), func(e Event) error { left = e.Files[0]; return nil })
		fatal(t, err)
		if err := left.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a file that was not taken is still open: %v", err)
		}
	})
	t.Run("events in order, unknown ones too", func(t *testing.T) {
		var got []string
		_, err := do(t.Context(), start(t, "events"), opts(), func(e Event) error { got = append(got, e.Script); return nil })
		if err != nil || strings.Join(got, " ") != "pre-dump one-of-tomorrow post-dump network-unlock" {
			t.Errorf("%v %v", got, err)
		}
	})
	t.Run("the caller's no is the error", func(t *testing.T) {
		no := errors.New("disk is full")
		_, err := do(t.Context(), start(t, "events"), opts(), func(e Event) error {
			if e.Script == PostDump {
				return no
			}
			return nil
		})
		if !errors.Is(err, no) || err.Error() != "criu dump: post-dump: disk is full" {
			t.Errorf("%v", err)
		}
	})
	t.Run("a cancelled context stops at the next event", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := do(ctx, start(t, "events"), opts(), func(e Event) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), PostDump) {
			t.Errorf("%v", err)
		}
	})
	t.Run("it dies", func(t *testing.T) {
		_, err := do(t.Context(), start(t, "dies"), opts(), nil)
		var e *Error
		if !errors.As(err, &e) || !e.Killed || !strings.Contains(err.Error(), "BUG at criu/mem.c") {
			t.Errorf("%v", err)
		}
	})
	t.Run("it cannot start", func(t *testing.T) {
		_, err := do(t.Context(), start(t, "no-library"), opts(), nil)
		var e *NotWorking
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "libnl-3.so.200") {
			t.Errorf("%v", err)
		}
	})
	t.Run("it talks nonsense", func(t *testing.T) {
		if _, err := do(t.Context(), start(t, "garbage"), opts(), nil); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a restore that hangs is killed when its time is over", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		o := RestoreOptions{Common: Common{Images: openDir(t, t.TempDir())}}
		_, err := start(t, "hangs").Restore(ctx, o, nil)
		var e *Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || !e.Killed {
			t.Errorf("%v", err)
		}
	})
}

func TestStartErrors(t *testing.T) {
	var missing *NotFound
	if _, err := (&CRIU{Path: "/nowhere/criu"}).Start(t.Context(), StartOptions{}); !errors.As(err, &missing) {
		t.Errorf("a path that is not there: %v", err)
	}
	var broken *NotWorking
	if _, err := (&CRIU{Path: "/etc/passwd"}).Start(t.Context(), StartOptions{}); !errors.As(err, &broken) {
		t.Errorf("a file that is no program: %v", err)
	}
	if n := len(openFiles(t)); n > 64 {
		t.Errorf("%d open descriptors", n)
	}
	before := len(openFiles(t))
	for range 5 {
		_, _ = (&CRIU{Path: "/nowhere/criu"}).Start(t.Context(), StartOptions{})
	}
	if after := len(openFiles(t)); after > before {
		t.Errorf("%d descriptors leak", after-before)
	}
}

func openFiles(t *testing.T) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	fatal(t, err)
	return list
}
