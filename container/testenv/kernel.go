package testenv

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// KernelOption is a probe for Lacks: whether the running kernel was built with
// an option such as CONFIG_USERFAULTFD, as a module or not.
func KernelOption(option string) func() (bool, error) {
	return func() (bool, error) {
		f, err := kernelConfig()
		if err != nil {
			return false, err
		}
		defer f.Close()
		return hasOption(f, option)
	}
}

// hasOption reads the text that the kernel was configured by.
func hasOption(config io.Reader, option string) (bool, error) {
	lines := bufio.NewScanner(config)
	for lines.Scan() {
		switch lines.Text() {
		case option + "=y", option + "=m":
			return true, nil
		}
	}
	return false, lines.Err()
}

// kernelConfig opens that text: the kernel's own, or what a distribution
// installs beside the kernel.
func kernelConfig() (io.ReadCloser, error) {
	f, err := os.Open("/proc/config.gz")
	if err == nil {
		unpacked, err := gzip.NewReader(f)
		return struct {
			io.Reader
			io.Closer
		}{unpacked, f}, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	release := unix.ByteSliceToString(name.Release[:])
	for _, path := range []string{"/boot/config-" + release, "/lib/modules/" + release + "/config"} {
		f, err := os.Open(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("nothing says how kernel %s was configured", release)
}
