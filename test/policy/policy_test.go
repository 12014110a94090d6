// Package policy tries every call at every service with the certificate of every service, over real connections.
package policy

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/policy"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	_ "github.com/shallot-net/shallot/proto/shallot/executor/v1" // for the list of all contracts
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// who may call what: the table of ARCHITECTURE.md, written a second time, so that a change of the first is made on purpose.
var who = map[string]map[string][]string{
	"broker": {
		"shallot.broker.v1.EventService":        {"discovery", "metric", "node"},
		"shallot.broker.v1.NetworkService":      {"discovery", "node"},
		"shallot.broker.v1.RepositoryService":   {"task", "node"},
		"shallot.telemetry.v1.TelemetryService": {"node"},
	},
	"onion":     {"shallot.onion.v1.OnionService": {"broker"}, "shallot.telemetry.v1.TelemetryService": nil},
	"discovery": {"shallot.discovery.v1.DiscoveryService": {"node"}, "shallot.telemetry.v1.TelemetryService": {"node"}},
	"metric":    {"shallot.metric.v1.MetricService": {"node"}, "shallot.telemetry.v1.TelemetryService": {"node"}},
	"task":      {"shallot.task.v1.TaskService": {"node"}, "shallot.task.v1.JobService": {"node"}, "shallot.telemetry.v1.TelemetryService": {"node"}},
	"node": {
		"shallot.node.v1.NodeService":           {"gateway", "cli"},
		"shallot.node.v1.JobService":            {"gateway", "cli"},
		"shallot.telemetry.v1.TelemetryService": {"gateway", "cli"},
	},
	"gateway": {"shallot.telemetry.v1.TelemetryService": nil},
}

var contracts = map[string]func(grpc.ServiceRegistrar){
	"shallot.broker.v1.EventService": func(s grpc.ServiceRegistrar) {
		brokerv1.RegisterEventServiceServer(s, brokerv1.UnimplementedEventServiceServer{})
	},
	"shallot.broker.v1.NetworkService": func(s grpc.ServiceRegistrar) {
		brokerv1.RegisterNetworkServiceServer(s, brokerv1.UnimplementedNetworkServiceServer{})
	},
	"shallot.broker.v1.RepositoryService": func(s grpc.ServiceRegistrar) {
		brokerv1.RegisterRepositoryServiceServer(s, brokerv1.UnimplementedRepositoryServiceServer{})
	},
	"shallot.onion.v1.OnionService": func(s grpc.ServiceRegistrar) {
		onionv1.RegisterOnionServiceServer(s, onionv1.UnimplementedOnionServiceServer{})
	},
	"shallot.discovery.v1.DiscoveryService": func(s grpc.ServiceRegistrar) {
		discoveryv1.RegisterDiscoveryServiceServer(s, discoveryv1.UnimplementedDiscoveryServiceServer{})
	},
	"shallot.metric.v1.MetricService": func(s grpc.ServiceRegistrar) {
		metricv1.RegisterMetricServiceServer(s, metricv1.UnimplementedMetricServiceServer{})
	},
	"shallot.task.v1.TaskService": func(s grpc.ServiceRegistrar) {
		taskv1.RegisterTaskServiceServer(s, taskv1.UnimplementedTaskServiceServer{})
	},
	"shallot.task.v1.JobService": func(s grpc.ServiceRegistrar) {
		taskv1.RegisterJobServiceServer(s, taskv1.UnimplementedJobServiceServer{})
	},
	"shallot.node.v1.NodeService": func(s grpc.ServiceRegistrar) {
		nodev1.RegisterNodeServiceServer(s, nodev1.UnimplementedNodeServiceServer{})
	},
	"shallot.node.v1.JobService": func(s grpc.ServiceRegistrar) {
		nodev1.RegisterJobServiceServer(s, nodev1.UnimplementedJobServiceServer{})
	},
	"shallot.telemetry.v1.TelemetryService": func(s grpc.ServiceRegistrar) {
		telemetryv1.RegisterTelemetryServiceServer(s, telemetryv1.UnimplementedTelemetryServiceServer{})
	},
}

// callers are all services, a client, and a name that there is no service of.
var callers = []string{"broker", "onion", "discovery", "metric", "task", "node", "gateway", "cli/laptop", "stranger"}

const (
	health     = "grpc.health.v1.Health"
	reflection = "grpc.reflection."
)

func allowed(process, service, caller string) bool {
	switch {
	case service == health:
		return true
	case strings.HasPrefix(service, reflection):
		for _, list := range who[process] {
			if slices.Contains(list, caller) {
				return true
			}
		}
		return false
	}
	return slices.Contains(who[process][service], caller)
}

func serve(t *testing.T, ca *mtlstest.CA, process string) *rpc.Server {
	t.Helper()
	s, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: "127.0.0.1:0", TLS: ca.Credentials(process)})
	if err != nil {
		t.Fatal(err)
	}
	for service := range who[process] {
		contracts[service](s)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.SetServing(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// try makes one call and says how it ended; nil is that a stream stands.
func try(t *testing.T, cc *grpc.ClientConn, method string, stream bool) *fault.Error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if !stream {
		return fault.From(cc.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
	}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err == nil {
		if err = errors.Join(s.SendMsg(&emptypb.Empty{}), s.CloseSend()); err == nil || errors.Is(err, io.EOF) {
			if err = s.RecvMsg(&emptypb.Empty{}); errors.Is(err, io.EOF) {
				err = nil
			}
		}
	}
	return fault.From(err)
}

func TestEveryCallByEveryCaller(t *testing.T) {
	ca := mtlstest.NewCA(t)
	may, mayNot := 0, 0
	for process := range who {
		s := serve(t, ca, process)
		for _, caller := range callers {
			cc, err := rpc.Dial(s.Addr().String(), rpc.ClientConfig{Peer: process, TLS: ca.Credentials(caller)})
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Split(caller)
			if name = strings.TrimSuffix(name, "/"); name == "" {
				name = caller
			}
			for service, info := range s.GetServiceInfo() {
				for _, m := range info.Methods {
					got := try(t, cc, "/"+service+"/"+m.Name, m.IsClientStream || m.IsServerStream)
					if allowed(process, service, name) {
						may++
						if got != nil && (got.Code == codes.PermissionDenied || got.Code == codes.Unauthenticated) || got == nil && strings.HasPrefix(service, "shallot.") {
							t.Errorf("%s at %s: %s/%s gives %v, and is allowed", caller, process, service, m.Name, got)
						}
						continue
					}
					mayNot++
					if got == nil || got.Code != codes.PermissionDenied || got.Reason != rpc.ReasonForbidden || len(got.Meta) > 0 || strings.Contains(got.Message, name) {
						t.Errorf("%s at %s: %s/%s gives %v, and is forbidden", caller, process, service, m.Name, got)
					}
				}
			}
			_ = cc.Close()
		}
	}
	t.Logf("%d calls that are allowed, %d that are forbidden", may, mayNot)
	if may == 0 || mayNot < 500 {
		t.Error("that cannot be all")
	}
}

// Every contract has a rule, but that of executors, who are no services of a node; and what the table says of methods is so.
func TestTheTableKnowsAllContracts(t *testing.T) {
	ruled := map[string]bool{"shallot.executor.v1.ExecutorService": true}
	for _, r := range policy.Rules() {
		ruled[r.Service] = true
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(r.Service))
		if err != nil {
			t.Errorf("%s: %v", r.Service, err)
			continue
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for _, name := range append(slices.Clone(r.Reads), r.Long...) {
			m := methods.ByName(protoreflect.Name(name))
			if m == nil {
				t.Errorf("%s has no %s", r.Service, name)
				continue
			}
			if stream := m.IsStreamingClient() || m.IsStreamingServer(); stream != slices.Contains(r.Long, name) {
				t.Errorf("%s/%s is a stream (%v): those that read are unary, the long ones are not", r.Service, name, stream)
			}
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			name := string(f.Services().Get(i).FullName())
			if strings.HasPrefix(name, "shallot.") && !ruled[name] {
				t.Errorf("there is no rule for %s: nobody may call it", name)
			}
		}
		return true
	})
}
