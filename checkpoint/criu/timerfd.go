package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// mendTimers arms, in the images of a dump, every periodic timerfd that had
// expired when nobody had read that yet. The kernel shows no time left for it
// (fs/timerfd.c starts the next period when the expiry is read), and CRIU before
// 4.3 restores a timer without time left as one that is not armed: it would
// never expire again. We give it the shortest time that there is, so that the
// restored timer expires once more than the old one would have.
//
// It is for the post-dump event, when the images are written and nobody reads
// them. Images of an unknown form are left as they are.
func mendTimers(dir *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), "files.img", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // as images had it before CRIU 3.0
	}
	if err != nil {
		return fmt.Errorf("mend timers: open files.img: %w", err)
	}
	f := os.NewFile(uintptr(fd), "files.img")
	defer f.Close()
	image, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("mend timers: %w", err)
	}
	for _, at := range expiredTimers(image) {
		// A varint of one byte: from 0 to 1 ns.
		if _, err := f.WriteAt([]byte{1}, int64(at)); err != nil {
			return fmt.Errorf("mend timers: %w", err)
		}
	}
	return nil
}

// What begins files.img (criu/include/magic.h).
const (
	imageMagic = 0x54564319 // IMG_COMMON_MAGIC
	filesMagic = 0x56303138 // FILES_MAGIC
)

// expiredTimers finds the places of it_value's nanoseconds of such timers. The
// image is a sequence of messages file_entry, a length of four bytes before each
// (images/fdinfo.proto and images/timerfd.proto of CRIU).
func expiredTimers(image []byte) (places []int) {
	if len(image) < 8 || binary.LittleEndian.Uint32(image) != imageMagic || binary.LittleEndian.Uint32(image[4:]) != filesMagic {
		return nil
	}
	for at := 8; at+4 <= len(image); {
		size := int(binary.LittleEndian.Uint32(image[at:]))
		at += 4
		if size > len(image)-at {
			return nil
		}
		const timer = 12 // of file_entry
		for _, f := range fieldsOf(image[at:at+size], at) {
			if f.number != timer || f.kind != protowire.BytesType {
				continue
			}
			if place, ok := expiredTimer(f.bytes, f.at); ok {
				places = append(places, place)
			}
		}
		at += size
	}
	return places
}

// expiredTimer looks at one message timerfd_entry.
func expiredTimer(message []byte, at int) (place int, ok bool) {
	const ticks, valueSec, valueNsec, intervalSec, intervalNsec = 5, 7, 8, 9, 10
	numbers := map[protowire.Number]uint64{}
	for _, f := range fieldsOf(message, at) {
		if f.kind != protowire.VarintType {
			continue
		}
		numbers[f.number] = f.value
		if f.number == valueNsec && len(f.bytes) == 1 {
			place = f.at
		}
	}
	return place, place > 0 && numbers[ticks] > 0 && numbers[valueSec]|numbers[valueNsec] == 0 && numbers[intervalSec]|numbers[intervalNsec] != 0
}

// field is one field of a message, and where its value lies.
type field struct {
	number protowire.Number
	kind   protowire.Type
	at     int
	bytes  []byte // the value as it is; without its length
	value  uint64 // of a varint
}

// fieldsOf are the fields of a message that begins at a place in the image;
// none, if it is not a message.
func fieldsOf(message []byte, at int) (all []field) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message, at = message[n:], at+n
		size := protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return nil
		}
		f := field{number: number, kind: kind, at: at, bytes: message[:size]}
		switch kind {
		case protowire.VarintType:
			f.value, _ = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(message)
			f.at, f.bytes = at+n-len(value), value
		}
		all = append(all, f)
		message, at = message[size:], at+size
	}
	return all
}
