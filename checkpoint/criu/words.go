package criu

import (
	"strconv"
	"strings"
)

// Words are the options that CRIU gets, by their long names on its command line:
// for people, and for a restore that needs to know. What is not among them has
// CRIU's default. A list has a comma between its values.
func (o *DumpOptions) Words() map[string]string {
	words := o.Common.words()
	set := func(name string, on bool) {
		if on {
			words[name] = "true"
		}
	}
	set("leave-running", o.LeaveRunning)
	set("track-mem", o.TrackMemory)
	if o.FreezeCgroup != "" {
		words["freeze-cgroup"] = o.FreezeCgroup
	}
	if o.GhostLimit > 0 {
		words["ghost-limit"] = strconv.FormatUint(uint64(o.GhostLimit), 10)
	}
	if o.Parent != "" {
		words["prev-images-dir"] = o.Parent
	}
	if o.Timeout > 0 {
		words["timeout"] = strconv.FormatFloat(o.Timeout.Seconds(), 'f', -1, 64)
	}
	return words
}

func (c *Common) words() map[string]string {
	words := map[string]string{"manage-cgroups": "ignore"}
	for name, on := range map[string]bool{
		"tcp-established": c.TCPEstablished, "tcp-close": c.TCPClose, "skip-in-flight": c.SkipInFlight, "file-locks": c.FileLocks,
		"shell-job": c.ShellJob, "ext-unix-sk": c.ExtUnixSockets, "link-remap": c.LinkRemap, "lazy-pages": c.LazyPages,
		"orphan-pts-master": c.OrphanPTSMaster,
	} {
		if on {
			words[name] = "true"
		}
	}
	switch c.NetworkLock {
	case LockNFTables:
		words["network-lock"] = "nftables"
	case LockSkip:
		words["network-lock"] = "skip"
	}
	if len(c.External) > 0 {
		words["external"] = strings.Join(c.External, ",")
	}
	if len(c.IrmapScanPaths) > 0 {
		words["irmap-scan-path"] = strings.Join(c.IrmapScanPaths, ",")
	}
	for _, e := range c.Extra {
		key, value, _ := strings.Cut(e, "=")
		words[key] = value
	}
	return words
}
