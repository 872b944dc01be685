package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crucible/checkpoint/criu"
	"crucible/checkpoint/preflight"
	"crucible/container"
	"crucible/container/host"
	"crucible/container/name"
	"crucible/container/network"
	"crucible/images"
	"crucible/images/archive"
	"crucible/images/inspect/criufile"
	"crucible/images/oci"
	"crucible/images/podman"
	"crucible/images/seal"
	"crucible/restore"
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func misuse(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// flagError says what is wrong with a flag in the words of our help. Those of
// package flag tell of Go's parsers.
func flagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return &usageError{err}
	}
	want := map[string]string{
		"int": "a whole number", "int64": "a whole number", "float64": "a number",
		"duration": "a time such as 500ms or 10s", "bool": "true or false",
	}[bad.GetFlag().Value.Type()]
	if want == "" {
		return &usageError{err}
	}
	return misuse("--%s %q: must be %s", bad.GetFlag().Name, bad.GetValue(), want)
}

// permissionError is a command that needs root.
type permissionError struct{ what string }

func (e *permissionError) Error() string { return e.what + ": must be root" }

// exitError carries the exit status of a container's program through cobra.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// failure is an error as the user sees it.
type failure struct {
	Message string `json:"error"`
	Object  string `json:"object,omitempty"` // the process, descriptor or path that stands in the way
	Hint    string `json:"hint,omitempty"`
	Log     string `json:"log,omitempty"`
	Code    int    `json:"exitCode"`
}

// report prints what went wrong in a command and returns the exit code.
func (a *app) report(ctx context.Context, c *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	f := explain(err)
	var gone *container.MonitorError // it has been told to end, and may be faster than its answer
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.As(err, &gone)) {
		f = failure{Message: "interrupted", Code: interrupted}
	}
	if f.Code == 2 && f.Hint == "" {
		if c.Name() == "help" {
			c = c.Root()
		}
		f.Hint = similar(c, err) + "see `" + c.CommandPath() + " --help`"
	}
	if saysUntested(c) {
		f.Code = crucibleFailed
		if f.Hint == "" && ctx.Err() == nil {
			f.Hint = "see `" + c.CommandPath() + " --help`"
		}
	}
	if comparesImages(c) && f.Code == 1 {
		f.Code = 2
	}
	if givesProgramStatus(c) && f.Code < crucibleFailed {
		f.Code = crucibleFailed
	}
	a.printFailure(f)
	return f.Code
}

func (a *app) printFailure(f failure) {
	if a.json {
		_ = json.NewEncoder(a.stderr).Encode(f)
		return
	}
	fmt.Fprintln(a.stderr, "crucible:", printable(f.Message))
	if f.Object != "" {
		fmt.Fprintln(a.stderr, "object:", f.Object)
	}
	if f.Hint != "" {
		fmt.Fprintln(a.stderr, "hint:", f.Hint)
	}
	if f.Log != "" {
		fmt.Fprintln(a.stderr, "log:", f.Log)
	}
}

// similar asks whether another command was meant.
func similar(c *cobra.Command, err error) string {
	var wrong string
	if _, scanErr := fmt.Sscanf(err.Error(), "unknown command %q", &wrong); scanErr != nil {
		return ""
	}
	c.SuggestionsMinimumDistance = 2
	names := c.SuggestionsFor(wrong)
	if len(names) == 0 {
		return ""
	}
	return "did you mean `" + c.CommandPath() + " " + names[0] + "`? else "
}

// interrupted is the exit code of a command that a signal ended, the shell's
// for SIGINT.
const interrupted = 130

// crucibleFailed is the exit code that tells our failure from a program's, the
// same as that of env(1), timeout(1) and podman.
const crucibleFailed = 125

// givesProgramStatus tells whether a command's exit code is that of a program.
func givesProgramStatus(c *cobra.Command) bool {
	switch c.Name() {
	case "exec", "attach":
		return true
	case "run":
		detached, err := c.Flags().GetBool("detach")
		return err == nil && !detached
	}
	return false
}

// saysUntested: what a command below `kernel` could not do says nothing about a
// kernel, whatever the reason. To git bisect any other code below 128 is "bad".
func saysUntested(c *cobra.Command) bool {
	return c.Name() == "kernel" || c.HasParent() && c.Parent().Name() == "kernel"
}

// explain is the one place that turns an error into message, hint and exit code.
func explain(err error) failure {
	f := failure{Message: oneLine(err), Code: 1}
	for _, look := range []func(error, *failure) bool{explainUsage, explainRemote, explainContainer, explainImage, explainCRIU} {
		if look(err, &f) {
			break
		}
	}
	return f
}

func oneLine(err error) string { return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ") }

func explainUsage(err error, f *failure) bool {
	var (
		usage      *usageError
		option     *container.OptionError
		badName    *name.Error
		permission *permissionError
	)
	switch {
	case errors.As(err, &usage), errors.As(err, &option), errors.As(err, &badName):
		f.Code = 2
	case errors.As(err, &permission):
		f.Code, f.Hint = 8, "run it with sudo, or as root"
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		f.Code, f.Hint = 8, "run it with sudo, or as root"
	case strings.HasPrefix(err.Error(), "unknown command"):
		f.Code = 2
	default:
		return false
	}
	return true
}

func explainContainer(err error, f *failure) bool {
	var (
		missing *container.NotFoundError
		exists  *container.ExistsError
		state   *container.StateError
		bundle  *container.BundleError
		start   *container.InitError
	)
	switch {
	case errors.As(err, &missing):
		f.Code, f.Hint = 3, "`crucible list` shows the containers"
	case errors.As(err, &exists):
		f.Code, f.Hint = 5, "choose another name, or `crucible delete -f "+exists.Name+"` first"
	case errors.As(err, &state):
		f.Code, f.Hint = 4, stateHint(state)
	case errors.As(err, &bundle):
		f.Hint = bundleHint(bundle)
	case errors.As(err, &start) && start.Hint != "":
		f.Hint = start.Hint
		if start.Kind == container.NotExecutable {
			f.Code = 126
		}
	case errors.As(err, &start) && start.Kind == container.NotFound:
		f.Code, f.Hint = 127, "the program must exist inside the container; its root filesystem and PATH decide"
	case errors.As(err, &start) && start.Kind == container.NotExecutable:
		f.Code, f.Hint = 126, "name a program that may be executed, or its interpreter with the file as an argument"
	case errors.As(err, &start) && strings.HasPrefix(start.Step, "cd "):
		f.Hint = "the working directory must exist in the container: see --workdir"
	case errors.As(err, &start):
		f.Hint = "a step before the program failed; `crucible run --explain` lists all of them"
	default:
		return false
	}
	return true
}

func bundleHint(e *container.BundleError) string {
	if _, unreadable := e.Cause.(syscall.Errno); unreadable {
		return "a bundle is a directory with a config.json (OCI runtime specification) and a root filesystem"
	}
	return "correct that field in the bundle's config.json"
}

func stateHint(e *container.StateError) string {
	switch {
	case e.Is == container.Starting:
		return "another command is bringing it up right now: `crucible list` shows what becomes of it"
	case e.Op == "delete":
		return "`crucible delete -f " + e.Name + "` stops it first"
	case e.Op == "restore":
		return "`crucible restore --name OTHER` makes a clone beside it, `crucible stop " + e.Name + "` ends it"
	case e.Is == container.Frozen:
		return "`crucible thaw " + e.Name + "` lets it go on"
	case e.Is == container.Stopped:
		return "`crucible start " + e.Name + "` starts it again, `crucible restore " + e.Name + "` continues its last image"
	case e.Is == container.Created:
		return "`crucible start " + e.Name + "` starts its program"
	}
	return "`crucible list` shows the state of each container"
}

func explainImage(err error, f *failure) bool {
	var bad *images.Error
	var space *images.NoSpaceError
	var packed *archive.Error
	var sealed *seal.Error
	var layout *oci.Error
	var foreign *podman.Error
	var blocked *preflight.Error
	var file *criufile.Error
	var bare *restore.NoFingerprintError
	switch {
	case errors.As(err, &bad):
		f.Code, f.Hint = 6, bad.Hint()
		switch bad.Kind {
		case images.NotFound:
			f.Code = 3
		case images.Exists:
			f.Code = 5
		}
		if f.Hint == "" {
			f.Hint = "`crucible image list` shows the images"
		}
	case errors.As(err, &file):
		if f.Hint = file.Hint(); file.Problem != criufile.BadJSON {
			f.Code = 6
		}
	case errors.As(err, &bare):
		f.Code, f.Hint = 6, bare.Hint()
	case errors.As(err, &space):
		f.Hint = space.Hint()
	case errors.As(err, &packed):
		f.Code, f.Hint = 6, packed.Hint()
	case errors.As(err, &layout):
		f.Code, f.Hint = 6, layout.Hint()
	case errors.As(err, &foreign):
		f.Code, f.Hint = 6, foreign.Hint()
	case errors.As(err, &sealed):
		f.Code, f.Hint = 6, sealed.Hint()
		if sealed.Key {
			f.Code = 2
		}
	case errors.As(err, &blocked):
		f.Code, f.Hint = 1, "`crucible checkpoint --dry-run` lists everything that stands in the way, with remedies"
		if len(blocked.Findings) > 0 && blocked.Findings[0].Remedy != "" {
			f.Hint = blocked.Findings[0].Remedy
		}
	default:
		return false
	}
	return true
}

// hinter is an error that knows what to do about itself.
type hinter interface{ Hint() string }

func explainCRIU(err error, f *failure) bool {
	var failed *criu.Error
	var missing *criu.NotFound
	var broken *criu.NotWorking
	var kernel *host.MissingError
	var address *network.AddressInUse
	var port *network.PortInUse
	switch {
	case errors.As(err, &missing), errors.As(err, &broken), errors.As(err, &kernel):
		f.Code = 7
	case errors.As(err, &failed):
		f.Log, f.Object = failed.LogPath, printable(failed.About())
	case errors.As(err, &address), errors.As(err, &port):
		f.Code = 5
	}
	f.Hint = hintOf(err)
	return f.Hint != "" || f.Code != 1
}

// hintOf is the first hint in the tree of an error.
func hintOf(err error) string {
	if h, ok := err.(hinter); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if inner := u.Unwrap(); inner != nil {
			return hintOf(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range u.Unwrap() {
			if hint := hintOf(inner); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// explainRemotely is explain for a monitor, which has no user to talk to.
func explainRemotely(err error) container.Explanation {
	f := explain(err)
	return container.Explanation{Hint: f.Hint, Object: f.Object, Log: f.Log, Code: f.Code}
}

func explainRemote(err error, f *failure) bool {
	var remote *container.RemoteError
	if !errors.As(err, &remote) {
		return false
	}
	f.Hint, f.Object, f.Log, f.Code = remote.Hint, remote.Object, remote.Log, remote.Code
	return true
}
