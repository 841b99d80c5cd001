// Pools a tensor and computes its gradient: go run pool.go HOST:PORT
//
// Written for Debian 12 (gRPC 1.33). Today's gRPC has grpc.NewClient instead of grpc.Dial.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "pooling/v1"
)

// data returns the elements as the contract has them: row-major, little-endian.
func data(values []float32) []byte {
	var buffer bytes.Buffer
	binary.Write(&buffer, binary.LittleEndian, values) // cannot fail: the type has a fixed size
	return buffer.Bytes()
}

func floats(tensor *pb.Tensor) []float32 {
	values := make([]float32, len(tensor.Data)/4)
	binary.Read(bytes.NewReader(tensor.Data), binary.LittleEndian, values)
	return values
}

// fail prints the reason and the field that the server named, and exits.
func fail(err error) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			log.Print("reason: ", detail.Reason)
		case *errdetails.BadRequest:
			log.Print("field: ", detail.FieldViolations[0].Field)
		}
	}
	log.Fatal(err)
}

func main() {
	// The default limit of a reply is 4 MiB.
	limit := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256 << 20))
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), limit)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := pb.NewPoolingServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	window := &pb.Window{Kernel: 2}
	spec := &pb.PoolSpec{Mode: pb.Mode_MODE_MAX, Windows: &pb.PoolSpec_SlidingWindows{
		SlidingWindows: &pb.SlidingWindows{Axes: []*pb.Window{window, window}}}}
	shape := []int64{1, 1, 4, 4}
	x := &pb.Tensor{ElementType: pb.ElementType_ELEMENT_TYPE_FLOAT32, Shape: shape,
		Data: data([]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})}

	pooled, err := client.Forward(ctx, &pb.ForwardRequest{Spec: spec, Input: x, ReturnIndices: true})
	if err != nil {
		fail(err)
	}
	gradient, err := client.Backward(ctx, &pb.BackwardRequest{Spec: spec, InputShape: shape,
		Residual:       &pb.BackwardRequest_Indices{Indices: pooled.Indices},
		OutputGradient: pooled.Output})
	if err != nil {
		fail(err)
	}
	fmt.Println(floats(pooled.Output))          // [5 7 13 15]
	fmt.Println(floats(gradient.InputGradient)) // zero, except at 5, 7, 13 and 15
}
