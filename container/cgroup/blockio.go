package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (s *resources) blockIO(b *specs.LinuxBlockIO) {
	if s.version("blkio") == 1 {
		s.blockIOV1(b)
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		// BFQ's range is the bundle's; the kernel's own iocost has another.
		own := setting{field: "linux.resources.blockIO.weight", controller: "io", file: "io.weight", value: decimal(ioWeight(*b.Weight))}
		s.add("blockIO.weight", "io", "io.bfq.weight", strconv.Itoa(int(*b.Weight))).or = &own
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		s.notInV2("blockIO.leafWeight")
	}
	for i, d := range b.WeightDevice {
		field := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			s.notInV2(field + ".leafWeight")
		}
		if d.Weight != nil && *d.Weight != 0 {
			own := setting{field: "linux.resources." + field, controller: "io", file: "io.weight", value: device(d.Major, d.Minor) + " " + decimal(ioWeight(*d.Weight))}
			s.add(field, "io", "io.bfq.weight", device(d.Major, d.Minor)+" "+strconv.Itoa(int(*d.Weight))).or = &own
		}
	}
	s.throttle(b, func(field, kind string, d specs.LinuxThrottleDevice) {
		s.add(field, "io", "io.max", device(d.Major, d.Minor)+" "+kind+"="+rate(d.Rate))
	})
}

// rate writes a limit for io.max; v1's way of taking one away is a 0.
func rate(r uint64) string {
	if r == 0 {
		return "max"
	}
	return strconv.FormatUint(r, 10)
}

func (s *resources) blockIOV1(b *specs.LinuxBlockIO) {
	// CFQ's files are gone since 5.0; BFQ has its own, where it is loaded.
	add := func(field, file, bfq, value string) {
		w := s.add(field, "blkio", file, value)
		if bfq != "" {
			w.or = &setting{field: w.field, controller: "blkio", file: bfq, value: value}
		}
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("blockIO.weight", "blkio.weight", "blkio.bfq.weight", strconv.Itoa(int(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("blockIO.leafWeight", "blkio.leaf_weight", "", strconv.Itoa(int(*b.LeafWeight)))
	}
	for i, d := range b.WeightDevice {
		field := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		if d.Weight != nil && *d.Weight != 0 {
			add(field, "blkio.weight_device", "blkio.bfq.weight_device", device(d.Major, d.Minor)+" "+strconv.Itoa(int(*d.Weight)))
		}
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			add(field+".leafWeight", "blkio.leaf_weight_device", "", device(d.Major, d.Minor)+" "+strconv.Itoa(int(*d.LeafWeight)))
		}
	}
	file := map[string]string{
		"rbps": "blkio.throttle.read_bps_device", "wbps": "blkio.throttle.write_bps_device",
		"riops": "blkio.throttle.read_iops_device", "wiops": "blkio.throttle.write_iops_device",
	}
	s.throttle(b, func(field, kind string, d specs.LinuxThrottleDevice) {
		add(field, file[kind], "", device(d.Major, d.Minor)+" "+strconv.FormatUint(d.Rate, 10))
	})
}

func (s *resources) throttle(b *specs.LinuxBlockIO, each func(field, kind string, d specs.LinuxThrottleDevice)) {
	for _, t := range []struct {
		field, kind string
		devices     []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for i, d := range t.devices {
			each(fmt.Sprintf("blockIO.%s[%d]", t.field, i), t.kind, d)
		}
	}
}

func device(major, minor int64) string {
	return strconv.FormatInt(major, 10) + ":" + strconv.FormatInt(minor, 10)
}
