// Package wire is what the pool and its children say to each other beyond shallot.executor.v1.
package wire

// Names of parts. PartArtefact is the pool's own: with a path it is a compiled module to load, without one it asks for
// what compiling gives, which comes as output of that name before the program starts. A PartModule without bytes and
// path is one that the child still has.
const (
	PartModule   = "module"
	PartStdin    = "stdin"
	PrefixInput  = "input:"
	PartArtefact = "artefact"
)

// Names of outputs.
const (
	OutputStdout = "stdout"
	OutputStderr = "stderr"
	PrefixOutput = "output:"
)

// Directories below a child's root. The pool writes DirRun, the child DirOut and DirScratch.
const (
	DirRun     = "run"
	DirIn      = "in" // in DirRun
	DirOut     = "out"
	DirScratch = "scratch"
)

// Attributes of Describe.
const (
	AttrEngine        = "engine"
	AttrEngineVersion = "engine_version"
	AttrFence         = "fence"
)

// Socket is the descriptor that a child serves on.
const Socket = 3

// MaxMessage bounds one message between pool and child, in bytes.
const MaxMessage = 4 << 20

// Piece is the size of one piece of output, in bytes.
const Piece = 64 << 10
