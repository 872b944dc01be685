package criufile

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// payload is how what follows a message is written.
type payload uint8

const (
	payloadNone       payload = iota
	payloadBytes              // bytes
	payloadQueues             // of TCP: what was received, then what was to be sent
	payloadSemaphores         // of System V: 16 bits each, filled up to 64
	payloadMessages           // of System V: each an entry of its own, filled up to 64 bits
)

// restOfFile is the size of a payload that ends where the file ends.
const restOfFile = -1

// payloadSize is the number of bytes that follow a message. The messages of a
// queue say it themselves: see readMessages.
func payloadSize(of *message, b []byte) (int64, error) {
	var size, second uint64
	switch of.name {
	case "pipe_data_entry":
		size = numberIn(of, b, "bytes")
	case "sk_packet_entry":
		size = numberIn(of, b, "length")
	case "ghost_chunk_entry":
		size = numberIn(of, b, "len")
	case "bpfmap_data_entry":
		size, second = numberIn(of, b, "keys_bytes"), numberIn(of, b, "values_bytes")
	case "tcp_stream_entry":
		size, second = numberIn(of, b, "inq_len"), numberIn(of, b, "outq_len")
	case "ipc_shm_entry":
		// Of a newer CRIU the content is in pages-N.img (criu/ipc_ns.c).
		if numberIn(of, b, "in_pagemaps") == 0 {
			size = roundUp(numberIn(of, b, "size"), 4)
		}
	case "ipc_sem_entry":
		size = roundUp(2*numberIn(of, b, "nsems"), 8)
	case "ghost_file_entry":
		// Without chunks the rest of the file is the content.
		if numberIn(of, b, "chunks") == 0 {
			return restOfFile, nil
		}
	}
	if size > math.MaxInt64/4 || second > math.MaxInt64/4 {
		return 0, problem(Damaged, "its payload has %d bytes", size)
	}
	return int64(size + second), nil
}

func roundUp(n, to uint64) uint64 {
	if n > math.MaxInt64/2 {
		return n
	}
	return (n + to - 1) / to * to
}

// numberIn is an integer field of a message, 0 if it is not there. The last
// counts, as everywhere in protobuf.
func numberIn(of *message, b []byte, name string) (value uint64) {
	f := of.byName[name]
	_ = eachField(b, func(n protowire.Number, v uint64, _ []byte) error {
		if n == f.number {
			value = v
		}
		return nil
	})
	return value
}

// readMessages reads the messages of a queue, each of which says how long it is.
func (f *File) readMessages(count uint64) ([]byte, error) {
	of, err := messageNamed("ipc_msg")
	if err != nil {
		return nil, err
	}
	var all []byte
	more := func(n uint64) ([]byte, error) {
		if n > uint64(f.left) {
			return nil, problem(Damaged, "its payload goes on for %d bytes, and only %d are left in the file", n, f.left)
		}
		start := len(all)
		all = append(all, make([]byte, n)...)
		return all[start:], f.read(all[start:])
	}
	for ; count > 0; count-- {
		b, err := more(4)
		if err == nil {
			b, err = more(uint64(binary.LittleEndian.Uint32(b)))
		}
		if err == nil {
			_, err = more(roundUp(numberIn(of, b, "msize"), 8))
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
