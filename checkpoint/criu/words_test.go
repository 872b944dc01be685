package criu

import (
	"os"
	"reflect"
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	o := DumpOptions{
		Common: Common{
			External: []string{"mnt[/a]:a", "mnt[/b]:b"}, NetworkLock: LockSkip, TCPEstablished: true, TCPClose: true, SkipInFlight: true, FileLocks: true,
			ShellJob: true, ExtUnixSockets: true, LinkRemap: true, LazyPages: true, OrphanPTSMaster: true, IrmapScanPaths: []string{"/x"}, Extra: []string{"ghost-fiemap", "file-validation=filesize"},
		},
		LeaveRunning: true, FreezeCgroup: "/sys/fs/cgroup/x", GhostLimit: 5, TrackMemory: true, Parent: "../1", Timeout: 1500 * time.Millisecond,
	}
	want := map[string]string{
		"manage-cgroups": "ignore", "external": "mnt[/a]:a,mnt[/b]:b", "network-lock": "skip", "tcp-established": "true", "tcp-close": "true",
		"skip-in-flight": "true", "file-locks": "true", "shell-job": "true", "ext-unix-sk": "true", "link-remap": "true", "lazy-pages": "true",
		"orphan-pts-master": "true", "irmap-scan-path": "/x", "ghost-fiemap": "", "file-validation": "filesize", "leave-running": "true",
		"freeze-cgroup": "/sys/fs/cgroup/x", "ghost-limit": "5", "track-mem": "true", "prev-images-dir": "../1", "timeout": "1.5",
	}
	if got := o.Words(); !reflect.DeepEqual(got, want) {
		t.Errorf("words are %v, want %v", got, want)
	}
	if got := (&DumpOptions{}).Words(); len(got) != 1 {
		t.Errorf("without options: %v", got)
	}
}

// Every option that a request has is among the words, whatever is added to it.
func TestWordsAreComplete(t *testing.T) {
	known := map[string]bool{ // files, and what changes nothing of an image
		"Images": true, "Work": true, "LogFile": true, "Quiet": true, "logLevel": true, "Common": true, "Pid": true,
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[DumpOptions](), reflect.TypeFor[Common]()} {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if known[f.Name] {
				continue
			}
			o := &DumpOptions{Common: Common{Images: os.Stdin}}
			v := reflect.ValueOf(o).Elem()
			at := v.FieldByName(f.Name)
			switch at.Kind() {
			case reflect.Bool:
				at.SetBool(true)
			case reflect.String:
				at.SetString("x")
			case reflect.Slice:
				at.Set(reflect.ValueOf([]string{"x"}))
			case reflect.Uint32:
				at.SetUint(2)
			default:
				at.SetInt(2)
			}
			if len(o.Words()) != 2 {
				t.Errorf("%s is not among the words: %v", f.Name, o.Words())
			}
		}
	}
}
