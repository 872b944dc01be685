package container_test

import (
	"fmt"
	"strings"
	"testing"

	"crucible/container"

	"golang.org/x/sys/unix"
)

// A program that may make device nodes cannot open those of the host: neither
// does its own node help, nor a volume that has one.
func TestDevicesOfTheHost(t *testing.T) {
	// A device without a driver could not be opened anyway.
	device, path := "", ""
	for _, p := range []string{"/dev/loop-control", "/dev/fuse", "/dev/autofs"} {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		path, device = p, fmt.Sprintf("c:%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		break
	}
	if device == "" {
		t.Fatal("no device to try with")
	}
	for name, tc := range map[string]struct {
		options container.RunOptions
		job     string
		want    string
	}{
		"mknod":        {job: "device:" + device, want: "open: operation not permitted\n"},
		"all rights":   {options: container.RunOptions{CapAdd: []string{"ALL"}}, job: "device:" + device, want: "open: operation not permitted\n"},
		"volume":       {options: container.RunOptions{Volumes: []string{path + ":/etc/device"}}, job: "open:/etc/device", want: "open: operation not permitted\n"},
		"with limits":  {options: container.RunOptions{Memory: 1 << 28, Pids: 100}, job: "device:" + device, want: "open: operation not permitted\n"},
		"given":        {options: container.RunOptions{Devices: []string{path}}, job: "open:" + path, want: "opened\n"},
		"given, again": {options: container.RunOptions{Devices: []string{path}}, job: "device:" + device, want: "opened\n"},
		"usual":        {job: "open:/dev/null,/dev/zero,/dev/full,/dev/random,/dev/urandom,/dev/ptmx", want: strings.Repeat("opened\n", 6)},
	} {
		t.Run(name, func(t *testing.T) {
			tc.options.Rootfs = image(t)
			out, err := run(t, create(t, tc.options, tc.job, nil))
			if err != nil || out != tc.want {
				t.Errorf("%s, %v; want %s", out, err, tc.want)
			}
		})
	}
}
