package criu

import (
	"encoding/hex"
	"testing"
	"time"
)

func TestParseFrozen(t *testing.T) {
	// Of CRIU 4.2.1: 1,030 µs to stop the tasks, 135,558 µs until they went on.
	image, err := hex.DecodeString("4059105506330957" + "25000000" + "0a23" + "088608" + "1086a308" +
		"189d7320802928d10a30003890084000480050155815600068007000")
	fatal(t, err)
	if got, want := parseFrozen(image), 136_588*time.Microsecond; got != want {
		t.Errorf("frozen for %v, want %v", got, want)
	}
	for n := range image {
		if got := parseFrozen(image[:n]); got != 0 {
			t.Errorf("%v of the first %d bytes", got, n)
		}
	}
}
