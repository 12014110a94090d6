import { get, url } from './api'
import type { Poll } from './poll.svelte'
import type { NodeInfo } from './types'

/** This node, which every screen wants to know of; App.svelte keeps it fresh. */
export const here: { poll: Poll<NodeInfo> | undefined } = $state({ poll: undefined })

export const askNode = (signal: AbortSignal): Promise<NodeInfo> => get<NodeInfo>(url('/v1/node', { usage: true }), signal)

export const node = (): NodeInfo | undefined => here.poll?.value
export const anonymous = (): boolean => node()?.mode === 'anonymous'
export const consumer = (): boolean => node()?.role === 'consumer'
