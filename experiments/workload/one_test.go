package workload

import (
	"crucible/container"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestOne(t *testing.T) {
	o := options(t)
	o.Dir = os.Getenv("WL_KEEP")
	if os.Getenv("WL_LOCKS") != "" {
		o.spoil = func(c *container.Container) error {
			b, _ := exec.Command("sh", "-c", os.Getenv("WL_LOCKS")).CombinedOutput()
			t.Logf("pid %d\n%s", c.State.Init.Pid, b)
			return nil
		}
	}
	o.Around = func(phase string, f func() error) error {
		b, _ := exec.Command("sh", "-c", os.Getenv("WL_LOCKS")).CombinedOutput()
		t.Logf("before %s\n%s", phase, b)
		return f()
	}
	defer func() {
		b, _ := exec.Command("sh", "-c", "grep -H Pid: /proc/"+strconv.Itoa(os.Getpid())+"/fdinfo/*").CombinedOutput()
		t.Logf("%s", b)
	}()
	for _, name := range strings.Split(os.Getenv("WL_CASE"), ",") {
		c, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		r := Run(t.Context(), c, o)
		t.Logf("%+v", r)
	}
}
