// Replays test vectors: reads {"method", "requests"} and prints {"Replies", "Error"}, as JSON.
// go run replay.go HOST:PORT < vectors
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "pooling/v1" // registers the messages
)

type failure struct {
	Code          uint32
	Reason, Field string
}

type outcome struct {
	Replies []json.RawMessage
	Error   *failure
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func message(name string) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("pooling.v1." + name))
	must(err)
	return kind.New().Interface()
}

// send works for unary calls and streams: a unary call is a stream of one message.
func send(connection *grpc.ClientConn, method string, requests []json.RawMessage) (result outcome) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kind := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(ctx, kind, "/pooling.v1.PoolingService/"+method)
	must(err)
	for _, text := range requests {
		request := message(method + "Request")
		must(protojson.Unmarshal(text, request))
		must(stream.SendMsg(request))
	}
	must(stream.CloseSend())
	for {
		reply := message(method + "Response")
		if err = stream.RecvMsg(reply); err != nil {
			break
		}
		text, err := protojson.Marshal(reply)
		must(err)
		result.Replies = append(result.Replies, text)
	}
	if err == io.EOF {
		return result
	}
	result.Error = &failure{Code: uint32(status.Code(err))}
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			result.Error.Reason = detail.Reason
		case *errdetails.BadRequest:
			result.Error.Field = detail.FieldViolations[0].Field
		}
	}
	return result
}

func main() {
	limit := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256 << 20))
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), limit)
	must(err)
	input, output := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var vector struct {
			Method   string
			Requests []json.RawMessage
		}
		if err := input.Decode(&vector); err == io.EOF {
			return
		} else {
			must(err)
		}
		must(output.Encode(send(connection, vector.Method, vector.Requests)))
	}
}
