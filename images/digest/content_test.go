package digest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"crucible/images/blake3"
)

func TestContent(t *testing.T) {
	for _, n := range []int{0, 1, blake3.BlockSize, blake3.BlockSize + 1, 5*blake3.BlockSize + 100} {
		content := bytes.Repeat([]byte("content"), n/7+1)[:n]
		copied := make([]byte, n)
		var mu sync.Mutex
		got, err := Content(t.Context(), bytes.NewReader(content), int64(n), 3, func(b []byte, at int64) error {
			mu.Lock()
			defer mu.Unlock()
			copy(copied[at:], b)
			return nil
		})
		if err != nil || got != blake3.Sum(content) || !bytes.Equal(copied, content) {
			t.Errorf("%d bytes: %x, %v", n, got, err)
		}
		if _, err := Content(t.Context(), bytes.NewReader(content), int64(n)+1, 0, nil); err == nil || !strings.Contains(err.Error(), "shorter") {
			t.Errorf("%d bytes instead of one more: %v", n, err)
		}
	}
	stop := errors.New("stop")
	if _, err := Content(t.Context(), strings.NewReader("x"), 1, 0, func([]byte, int64) error { return stop }); err != stop {
		t.Errorf("error of the function: %v", err)
	}
}
