package plan

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 4096, 64KiB, 1.5MiB or 2GiB.
type Size int64

// Duration is a time, written as 500ms, 2s or 1m30s.
type Duration time.Duration

var units = []struct {
	name string
	size float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

func (s *Size) set(text string) error {
	n, err := parseSize(text)
	*s = Size(n)
	return err
}

func parseSize(text string) (float64, error) {
	number, factor := text, 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || n*factor >= 1<<53 {
		return 0, fmt.Errorf("%q is no size: 4096, 64KiB, 1.5MiB, 2GiB", text)
	}
	return n * factor, nil
}

func (s Size) String() string {
	for _, u := range units[:3] {
		if n := float64(s) / u.size; n >= 1 && n < 1024 {
			return strconv.FormatFloat(n, 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func (d *Duration) set(text string) error {
	t, err := time.ParseDuration(text)
	if err != nil || t < 0 {
		return fmt.Errorf("%q is no time: 500ms, 2s, 1m30s", text)
	}
	*d = Duration(t)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// quantity is a number with the unit of a measure, in the measure's own: seconds,
// bytes, or a plain number.
func quantity(unit Unit, text string) (float64, error) {
	switch unit {
	case Seconds:
		t, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%q is no time: 500ms, 2s, 1m30s", text)
		}
		return t.Seconds(), nil
	case Bytes:
		return parseSize(text)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return n, nil
}
