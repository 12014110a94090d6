// What REST answers, as far as the dashboard reads it. 64-bit integers come as strings; fields that an older node does not know are missing.

export interface Problem {
  code?: string
  reason?: string
  message?: string
}

export interface Process {
  name: string
  pid: string
  state: string
  detail: string
  started_at: string | null
  memory: string
  cpu: string | null
}

export interface Limits {
  time: string | null
  memory: string
  output: string
}

export interface Capability {
  type: string
  version: string
  max_limits: Limits | null
  attributes: Record<string, string>
}

export interface NodeInfo {
  peer_id: string
  alias: string
  role: string
  mode: string
  capabilities: Capability[]
  processes: Process[]
  providers_known: number
  connections: number
  online: boolean
  ready: boolean
  version: string
  started_at: string | null
  fence: string
  tor: { state: string; progress: number; detail: string } | null
}

export interface TaskError {
  reason: string
  message: string
}

export interface HistoryEntry {
  at: string
  attempt: number
  state: string
  what: string
  peer_id: string
  alias: string
  detail: string
}

export interface ResultInfo {
  cid: string
  stdout_size: string
  stderr_size: string
  files: { path: string; size: string }[]
  stdout_sha256: string
  available: boolean
}

export interface Task {
  id: string
  type: string
  state: string
  provider: string
  consumer: string
  provider_alias: string
  consumer_alias: string
  attempts: number
  exit_code: number | null
  error: TaskError | null
  created_at: string | null
  started_at: string | null
  finished_at: string | null
  limits: Limits | null
  usage: Record<string, unknown> | null
  result: ResultInfo | null
  history: HistoryEntry[]
  labels: Record<string, string>
  queue_position: number
  revision: string
  progress: { fraction: number; text: string; at: string | null } | null
  replicas: number
  replica_peers: { peer_id: string; alias: string; state: string; reason: string }[]
}

export interface Candidate {
  peer_id: string
  alias: string
  /** The less the better. */
  score: number | null
  verdict: string
  reason: string
}

export interface Placement {
  attempts: {
    attempt: number
    peer_id: string
    alias: string
    at: string | null
    /** UPPER_SNAKE. */
    chosen_because: string
    considered: Candidate[]
    known: number
    qualified: number
    /** Set where the chosen one handed the task on. */
    provider: string
    provider_alias: string
    ended: string
  }[]
}

export interface JobCounts {
  added: number
  waiting: number
  running: number
  completed: number
  failed: number
  cancelled: number
  extra: number
}

export interface Job {
  id: string
  name: string
  state: string
  total: number
  parallel: number
  hedge: boolean
  counts: JobCounts | null
  created_at: string | null
  started_at: string | null
  finished_at: string | null
  detail: string
}

export interface Shard {
  index: number
  name: string
  size: string
  state: string
  task_id: string
  tries: number
  attempts: number
  exit_code: number | null
  error: TaskError | null
  took: string | null
  ended: string
  stdout_size: string
}

export interface Peer {
  peer_id: string
  alias: string
  role: string
  state: string
  capabilities: Capability[]
  first_seen: string | null
  last_seen: string | null
  rtt: string | null
  connected: boolean
}

export interface Space {
  total: string
  free: string
  used: string
}

export interface Metric {
  peer_id: string
  cpu: { model: string; cores: number; threads: number; load: number; load1: number } | null
  memory: Space | null
  disk: Space | null
  gpus: { model: string; memory: string }[]
  queue: { pending: number; running: number; slots: number; capacity: number } | null
}

export interface KnownMetric {
  metric: Metric
  received_at: string | null
  age: string | null
  own: boolean
  alias: string
}

export interface HistoryPoint {
  time: string
  waiting?: number
  running?: number
  finished?: number
  failed?: number
  latency_p50?: number | string | null
  latency_p99?: number | string | null
  cpu?: number
  memory?: number | string
  disk_used?: number | string
  disk_free?: number | string
  memory_used?: number | string
  memory_total?: number | string
}

export interface Finding {
  check: string
  verdict: string
  detail: string
  mend: string
}

export interface Pin {
  cid: string
  owner: string
  expires_at: string | null
  size: string
}

export interface SettingRow {
  name: string
  value: string
  origin: string
  place: string
  secret: boolean
}

export interface Session {
  expires_at: string | null
  nodes: { name: string; url: string; current: boolean }[]
}
