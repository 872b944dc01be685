package checkpoint

import (
	"compress/gzip"
	"crypto/sha256"
	"io"
	"os"
	"strings"
)

// KernelConfig digests the configuration of the kernel that runs, as plain text:
// /proc/config.gz (CONFIG_IKCONFIG_PROC) or the file that distributions put
// beside the kernel. It takes up to a millisecond; without either it is nothing.
func KernelConfig(release string) (sum []byte, path string) {
	for _, path := range []string{"/proc/config.gz", "/boot/config-" + release} {
		if sum := digestConfig(path); sum != nil {
			return sum, path
		}
	}
	return nil, ""
}

// configLater does it beside everything else; the function that it returns waits.
func configLater(release string) func() (sum []byte, path string) {
	var sum []byte
	var path string
	done := make(chan struct{})
	go func() {
		defer close(done)
		sum, path = KernelConfig(release)
	}()
	return func() ([]byte, string) {
		<-done
		return sum, path
	}
}

func digestConfig(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var text io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if text, err = gzip.NewReader(f); err != nil {
			return nil
		}
	}
	h := sha256.New()
	// A configuration has some hundred KiB, and nobody can make the kernel's own
	// file another one.
	if _, err := io.Copy(h, io.LimitReader(text, 16<<20)); err != nil {
		return nil
	}
	return h.Sum(nil)
}
