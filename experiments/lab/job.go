package lab

import "encoding/json"

// Job is what a guest does once it is ready. It does one of the three.
type Job struct {
	// Run names work that the program's own main knows (see Guest), with its
	// arguments.
	Run  string          `json:"run,omitempty"`
	Args json.RawMessage `json:"args,omitempty"`

	Exec  *Exec  `json:"exec,omitempty"`
	Shell *Shell `json:"shell,omitempty"`
}

// Exec is a program to be run as root.
type Exec struct {
	Args []string `json:"args"` // a path in the guest, and its arguments
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
}

// Shell is a prompt on the console. The guest's messages then go nowhere.
type Shell struct {
	Path    string `json:"path"`           // in the guest
	Rows    uint16 `json:"rows,omitempty"` // of the terminal; 0 is unknown
	Columns uint16 `json:"columns,omitempty"`
}

// plan is what /init reads from planPath.
type plan struct {
	Cgroup   string   `json:"cgroup"`
	Modules  []string `json:"modules,omitempty"` // their files in the guest, in order
	Rundir   string   `json:"rundir,omitempty"`  // where the CRIU keeps its cache
	Criu     string   `json:"criu,omitempty"`
	Disk     bool     `json:"disk,omitempty"`
	Count    bool     `json:"count,omitempty"` // see Count: do nothing at times of its own
	Absent   []string `json:"absent,omitempty"`
	Job      Job      `json:"job"`
	Hostname string   `json:"hostname"`
}

const (
	labDir   = "/lab"
	planPath = labDir + "/plan.json"
	// Results is the guest's results folder; what is in it at the job's end is
	// copied to the host.
	Results = "/results"
)

// The cgroup layouts.
const (
	CgroupV1     = "v1"
	CgroupHybrid = "hybrid"
	CgroupV2     = "v2"
)

// Cgroups are the layouts that a guest can be given.
func Cgroups() []string { return []string{CgroupV1, CgroupHybrid, CgroupV2} }
