package policy

// The services of a node, as their certificates name them.
const (
	broker    = "broker"
	onion     = "onion"
	discovery = "discovery"
	metric    = "metric"
	task      = "task"
	node      = "node"
	gateway   = "gateway"
	cli       = "cli" // people and programs outside of the node, each with a certificate of its own
)

// table is who may call whom; ARCHITECTURE.md says the same in words. What is not here is forbidden.
var table = []Rule{
	{
		Process: broker, Service: "shallot.broker.v1.EventService", Callers: []string{discovery, metric, node},
		Long: []string{"Send", "Subscribe"},
	},
	{
		Process: broker, Service: "shallot.broker.v1.NetworkService", Callers: []string{discovery, node},
		Reads: []string{"Self", "ListPeers", "ListKnownPeers", "ListPersonas"}, Long: []string{"Watch"},
	},
	{
		Process: broker, Service: "shallot.broker.v1.RepositoryService", Callers: []string{task, node},
		Reads: []string{"Stat", "ListPins"}, Long: []string{"PutMany"},
	},
	{
		Process: onion, Service: "shallot.onion.v1.OnionService", Callers: []string{broker},
		Long: []string{"Watch"},
	},
	{
		Process: discovery, Service: "shallot.discovery.v1.DiscoveryService", Callers: []string{node},
		Reads: []string{"ListPeers", "GetPeer"}, Long: []string{"WatchPeers"},
	},
	{
		Process: metric, Service: "shallot.metric.v1.MetricService", Callers: []string{node},
		Reads: []string{"GetMetric", "ListMetrics"}, Long: []string{"WatchMetrics"},
	},
	{
		Process: task, Service: "shallot.task.v1.TaskService", Callers: []string{node},
		Reads: []string{"Describe", "GetTask", "GetPlacement", "ListTasks"}, Long: []string{"Session", "WatchQueue", "WatchTask", "WatchTasks"},
	},
	{
		Process: task, Service: "shallot.task.v1.JobService", Callers: []string{node},
		Reads: []string{"GetJob", "ListJobs", "ListShards"}, Long: []string{"WatchJob"},
	},
	{
		Process: node, Service: "shallot.node.v1.NodeService", Callers: []string{gateway, cli},
		Reads: []string{"GetNode", "GetSettings", "ListPeers", "GetPeer", "ListMetrics", "GetPeerMetrics", "GetPeerMetricsHistory", "GetHistory", "Diagnose", "GetTask", "GetPlacement", "ListTasks", "StatContent", "ListPins"}, Long: []string{"WatchTask", "WatchTasks"},
	},
	{
		Process: node, Service: "shallot.node.v1.JobService", Callers: []string{gateway, cli},
		Reads: []string{"GetJob", "ListJobs", "ListShards"}, Long: []string{"WatchJob"},
	},
	// Each gathers from those that it calls.
	{Process: broker, Service: telemetry, Callers: []string{node}, Reads: []string{"Gather", "GetSettings"}},
	{Process: discovery, Service: telemetry, Callers: []string{node}, Reads: []string{"Gather", "GetSettings"}},
	{Process: metric, Service: telemetry, Callers: []string{node}, Reads: []string{"Gather", "GetSettings"}},
	{Process: task, Service: telemetry, Callers: []string{node}, Reads: []string{"Gather", "GetSettings"}},
	{Process: node, Service: telemetry, Callers: []string{gateway, cli}, Reads: []string{"Gather", "GetSettings"}},
}

const telemetry = "shallot.telemetry.v1.TelemetryService"

// health is for everybody with a certificate of the node: it says no more than that somebody is there, and a caller whose calls are refused must be told so,
// in place of taking the service for one that is down.
const health = "grpc.health.v1.Health"

// reflection is for everybody who may make any call to the process.
var reflection = []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}

// healthReads are those of health that are repeated.
var healthReads = []string{"/" + health + "/Check", "/" + health + "/List"}
