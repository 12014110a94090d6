package mux

import (
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
)

// checkSize refuses a frame that gRPC would refuse by ending the whole stream, and everybody's calls with it.
func checkSize(frame any) error {
	m, ok := frame.(proto.Message)
	if !ok {
		return nil
	}
	if n := proto.Size(m); n > rpc.MaxMessage-64 { // room for the sequence number
		return fault.ResourceExhausted("MESSAGE_TOO_LARGE", "the message has %d bytes and may have %d: send large bodies as streams", n, rpc.MaxMessage-64)
	}
	return nil
}
