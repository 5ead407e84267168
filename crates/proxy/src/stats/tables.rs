//! Envoy's statistics by owner. The name in the table is the last part of Envoy's name.
// tidy: table

use super::{Kind, StatSet};

macro_rules! stat_sets {
    ($($(#[$doc:meta])* $set:ident { $($kind:ident $name:literal $variant:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $set { $($variant,)* }

            impl StatSet for $set {
                const TABLE: &'static [(&'static str, Kind)] = &[$(($name, Kind::$kind),)*];
                fn index(self) -> usize {
                    self as usize
                }
            }
        )*
    };
}

stat_sets! {
    /// `listener.ADDRESS.`
    Listener {
        Counter "downstream_cx_total" CxTotal,
        Counter "downstream_cx_destroy" CxDestroy,
        Gauge "downstream_cx_active" CxActive,
        Histogram "downstream_cx_length_ms" CxLengthMs,
        Counter "downstream_cx_overflow" CxOverflow,
        Counter "downstream_global_cx_overflow" GlobalCxOverflow,
        Counter "downstream_cx_overload_reject" CxOverloadReject,
        Counter "downstream_cx_transport_socket_connect_timeout" TransportTimeout,
        Gauge "downstream_pre_cx_active" PreCxActive,
        Counter "downstream_pre_cx_timeout" PreCxTimeout,
        Counter "downstream_listener_filter_error" FilterError,
        Counter "downstream_listener_filter_remote_close" FilterRemoteClose,
        Counter "no_filter_chain_match" NoFilterChainMatch,
        Counter "connections_accepted_per_socket_event" Accepted,
        Counter "extension_config_missing" ExtensionConfigMissing,
        Counter "network_extension_config_missing" NetworkExtensionConfigMissing,
        Counter "ssl.connection_error" SslConnectionError,
        Counter "ssl.handshake" SslHandshake,
        Counter "ssl.session_reused" SslSessionReused,
        Counter "ssl.no_certificate" SslNoCertificate,
        Counter "ssl.fail_verify_no_cert" SslFailVerifyNoCert,
        Counter "ssl.fail_verify_error" SslFailVerifyError,
        Counter "ssl.fail_verify_san" SslFailVerifySan,
        Counter "ssl.fail_verify_cert_hash" SslFailVerifyCertHash,
    }

    /// `http.PREFIX.`
    Http {
        Counter "downstream_cx_total" CxTotal,
        Counter "downstream_cx_ssl_total" CxSslTotal,
        Counter "downstream_cx_http1_total" CxHttp1Total,
        Counter "downstream_cx_http2_total" CxHttp2Total,
        Counter "downstream_cx_upgrades_total" CxUpgradesTotal,
        Counter "downstream_cx_destroy" CxDestroy,
        Counter "downstream_cx_destroy_remote" CxDestroyRemote,
        Counter "downstream_cx_destroy_local" CxDestroyLocal,
        Counter "downstream_cx_destroy_active_rq" CxDestroyActiveRq,
        Counter "downstream_cx_destroy_local_active_rq" CxDestroyLocalActiveRq,
        Counter "downstream_cx_destroy_remote_active_rq" CxDestroyRemoteActiveRq,
        Counter "downstream_cx_drain_close" CxDrainClose,
        Counter "downstream_cx_idle_timeout" CxIdleTimeout,
        Counter "downstream_cx_max_duration_reached" CxMaxDuration,
        Counter "downstream_cx_max_requests_reached" CxMaxRequests,
        Counter "downstream_cx_overload_disable_keepalive" CxOverloadDisable,
        Counter "downstream_cx_protocol_error" CxProtocolError,
        Counter "downstream_cx_delayed_close_timeout" CxDelayedClose,
        Gauge "downstream_cx_active" CxActive,
        Gauge "downstream_cx_ssl_active" CxSslActive,
        Gauge "downstream_cx_http1_active" CxHttp1Active,
        Gauge "downstream_cx_http2_active" CxHttp2Active,
        Gauge "downstream_cx_upgrades_active" CxUpgradesActive,
        Counter "downstream_cx_rx_bytes_total" CxRxBytesTotal,
        Gauge "downstream_cx_rx_bytes_buffered" CxRxBuffered,
        Counter "downstream_cx_tx_bytes_total" CxTxBytesTotal,
        Gauge "downstream_cx_tx_bytes_buffered" CxTxBuffered,
        Counter "downstream_flow_control_paused_reading_total" FlowPaused,
        Counter "downstream_flow_control_resumed_reading_total" FlowResumed,
        Histogram "downstream_cx_length_ms" CxLengthMs,
        Counter "downstream_rq_total" RqTotal,
        Counter "downstream_rq_http1_total" RqHttp1Total,
        Counter "downstream_rq_http2_total" RqHttp2Total,
        Gauge "downstream_rq_active" RqActive,
        Counter "downstream_rq_1xx" Rq1xx,
        Counter "downstream_rq_2xx" Rq2xx,
        Counter "downstream_rq_3xx" Rq3xx,
        Counter "downstream_rq_4xx" Rq4xx,
        Counter "downstream_rq_5xx" Rq5xx,
        Counter "downstream_rq_completed" RqCompleted,
        Counter "downstream_rq_failed_path_normalization" RqFailedNormalization,
        Counter "downstream_rq_header_timeout" RqHeaderTimeout,
        Counter "downstream_rq_idle_timeout" RqIdleTimeout,
        Counter "downstream_rq_max_duration_reached" RqMaxDuration,
        Counter "downstream_rq_non_relative_path" RqNonRelativePath,
        Counter "downstream_rq_overload_close" RqOverloadClose,
        Counter "downstream_rq_redirected_with_normalized_path" RqRedirected,
        Counter "downstream_rq_rejected_via_ip_detection" RqRejectedIp,
        Counter "downstream_rq_response_before_rq_complete" RqResponseBefore,
        Counter "downstream_rq_rx_reset" RqRxReset,
        Counter "downstream_rq_too_large" RqTooLarge,
        Counter "downstream_rq_too_many_premature_resets" RqPrematureResets,
        Counter "downstream_rq_timeout" RqTimeout,
        Counter "downstream_rq_tx_reset" RqTxReset,
        Counter "downstream_rq_ws_on_non_ws_route" RqWsOnNonWsRoute,
        Histogram "downstream_rq_time" RqTime,
        Counter "rq_total" RouterRqTotal,
        Counter "rq_direct_response" DirectResponse,
        Counter "rq_redirect" Redirect,
        Counter "no_route" NoRoute,
        Counter "no_cluster" NoCluster,
        Counter "rq_reset_after_downstream_response_started" ResetAfterResponse,
        Counter "passthrough_internal_redirect_bad_location" RedirectBadLocation,
        Counter "passthrough_internal_redirect_no_route" RedirectNoRoute,
        Counter "passthrough_internal_redirect_predicate" RedirectPredicate,
        Counter "passthrough_internal_redirect_too_many_redirects" RedirectTooMany,
        Counter "passthrough_internal_redirect_unsafe_scheme" RedirectUnsafe,
        Counter "rq_retry_skipped_request_not_complete" RetrySkipped,
        Counter "rq_overload_local_reply" OverloadReply,
        Counter "tracing.random_sampling" TracingRandom,
        Counter "tracing.service_forced" TracingForced,
        Counter "tracing.client_enabled" TracingClient,
        Counter "tracing.not_traceable" TracingNot,
        Counter "tracing.health_check" TracingHealth,
    }

    /// `http.PREFIX.rds.NAME.` / `cluster_manager.cds.` / `listener_manager.lds.` and such.
    Subscription {
        Counter "config_reload" ConfigReload,
        Gauge "config_reload_time_ms" ConfigReloadTime,
        Counter "init_fetch_timeout" InitFetchTimeout,
        Counter "update_attempt" UpdateAttempt,
        Counter "update_empty" UpdateEmpty,
        Counter "update_failure" UpdateFailure,
        Counter "update_rejected" UpdateRejected,
        Counter "update_success" UpdateSuccess,
        Gauge "update_time" UpdateTime,
        Gauge "version" Version,
        Histogram "update_duration" UpdateDuration,
    }

    /// `tcp.PREFIX.`
    TcpProxy {
        Counter "downstream_cx_total" CxTotal,
        Counter "downstream_cx_no_route" CxNoRoute,
        Counter "downstream_cx_tx_bytes_total" CxTxBytesTotal,
        Gauge "downstream_cx_tx_bytes_buffered" CxTxBuffered,
        Counter "downstream_cx_rx_bytes_total" CxRxBytesTotal,
        Gauge "downstream_cx_rx_bytes_buffered" CxRxBuffered,
        Counter "downstream_flow_control_paused_reading_total" FlowPaused,
        Counter "downstream_flow_control_resumed_reading_total" FlowResumed,
        Counter "idle_timeout" IdleTimeout,
        Counter "max_downstream_connection_duration" MaxDuration,
        Counter "upstream_flush_total" UpstreamFlushTotal,
        Gauge "upstream_flush_active" UpstreamFlushActive,
        Counter "early_data_received_count_total" EarlyData,
        Counter "on_demand_cluster_attempt" OnDemandAttempt,
        Counter "on_demand_cluster_missing" OnDemandMissing,
        Counter "on_demand_cluster_success" OnDemandSuccess,
        Counter "on_demand_cluster_timeout" OnDemandTimeout,
    }

    /// `cluster.NAME.`
    Cluster {
        Counter "assignment_stale" AssignmentStale,
        Counter "assignment_timeout_received" AssignmentTimeout,
        Counter "assignment_use_cached" AssignmentUseCached,
        Counter "bind_errors" BindErrors,
        Counter "original_dst_host_invalid" OriginalDstHostInvalid,
        Counter "update_attempt" UpdateAttempt,
        Counter "update_success" UpdateSuccess,
        Counter "update_failure" UpdateFailure,
        Counter "update_rejected" UpdateRejected,
        Counter "update_empty" UpdateEmpty,
        Counter "update_no_rebuild" UpdateNoRebuild,
        Counter "upstream_cx_total" CxTotal,
        Gauge "upstream_cx_active" CxActive,
        Counter "upstream_cx_http1_total" CxHttp1Total,
        Counter "upstream_cx_http2_total" CxHttp2Total,
        Counter "upstream_cx_http3_total" CxHttp3Total,
        Counter "upstream_cx_connect_fail" CxConnectFail,
        Counter "upstream_cx_connect_timeout" CxConnectTimeout,
        Counter "upstream_cx_connect_with_0_rtt" Cx0Rtt,
        Counter "upstream_cx_idle_timeout" CxIdleTimeout,
        Counter "upstream_cx_max_duration_reached" CxMaxDuration,
        Counter "upstream_cx_connect_attempts_exceeded" CxAttemptsExceeded,
        Counter "upstream_cx_overflow" CxOverflow,
        Histogram "upstream_cx_connect_ms" CxConnectMs,
        Histogram "upstream_cx_length_ms" CxLengthMs,
        Counter "upstream_cx_destroy" CxDestroy,
        Counter "upstream_cx_destroy_local" CxDestroyLocal,
        Counter "upstream_cx_destroy_remote" CxDestroyRemote,
        Counter "upstream_cx_destroy_with_active_rq" CxDestroyActiveRq,
        Counter "upstream_cx_destroy_local_with_active_rq" CxDestroyLocalActiveRq,
        Counter "upstream_cx_destroy_remote_with_active_rq" CxDestroyRemoteActiveRq,
        Counter "upstream_cx_close_notify" CxCloseNotify,
        Counter "upstream_cx_rx_bytes_total" CxRxBytesTotal,
        Gauge "upstream_cx_rx_bytes_buffered" CxRxBuffered,
        Counter "upstream_cx_tx_bytes_total" CxTxBytesTotal,
        Gauge "upstream_cx_tx_bytes_buffered" CxTxBuffered,
        Counter "upstream_cx_pool_overflow" CxPoolOverflow,
        Counter "upstream_cx_protocol_error" CxProtocolError,
        Counter "upstream_cx_max_requests" CxMaxRequests,
        Counter "upstream_cx_none_healthy" CxNoneHealthy,
        Counter "upstream_rq_total" RqTotal,
        Gauge "upstream_rq_active" RqActive,
        Counter "upstream_rq_pending_total" RqPendingTotal,
        Counter "upstream_rq_pending_overflow" RqPendingOverflow,
        Counter "upstream_rq_pending_failure_eject" RqPendingFailureEject,
        Gauge "upstream_rq_pending_active" RqPendingActive,
        Counter "upstream_rq_0rtt" Rq0Rtt,
        Counter "upstream_rq_cancelled" RqCancelled,
        Counter "upstream_rq_maintenance_mode" RqMaintenance,
        Counter "upstream_rq_timeout" RqTimeout,
        Counter "upstream_rq_max_duration_reached" RqMaxDuration,
        Counter "upstream_rq_per_try_timeout" RqPerTryTimeout,
        Counter "upstream_rq_per_try_idle_timeout" RqPerTryIdleTimeout,
        Counter "upstream_rq_rx_reset" RqRxReset,
        Counter "upstream_rq_tx_reset" RqTxReset,
        Counter "upstream_rq_retry" RqRetry,
        Counter "upstream_rq_retry_backoff_exponential" RqRetryBackoff,
        Counter "upstream_rq_retry_backoff_ratelimited" RqRetryRatelimited,
        Counter "upstream_rq_retry_limit_exceeded" RqRetryLimit,
        Counter "upstream_rq_retry_success" RqRetrySuccess,
        Counter "upstream_rq_retry_overflow" RqRetryOverflow,
        Counter "upstream_rq_completed" RqCompleted,
        Counter "upstream_rq_1xx" Rq1xx,
        Counter "upstream_rq_2xx" Rq2xx,
        Counter "upstream_rq_3xx" Rq3xx,
        Counter "upstream_rq_4xx" Rq4xx,
        Counter "upstream_rq_5xx" Rq5xx,
        Histogram "upstream_rq_time" RqTime,
        Counter "upstream_flow_control_paused_reading_total" FlowPaused,
        Counter "upstream_flow_control_resumed_reading_total" FlowResumed,
        Counter "upstream_flow_control_backed_up_total" FlowBackedUp,
        Counter "upstream_flow_control_drained_total" FlowDrained,
        Counter "upstream_internal_redirect_failed_total" RedirectFailed,
        Counter "upstream_internal_redirect_succeeded_total" RedirectSucceeded,
        Counter "membership_change" MembershipChange,
        Gauge "membership_healthy" MembershipHealthy,
        Gauge "membership_degraded" MembershipDegraded,
        Gauge "membership_excluded" MembershipExcluded,
        Gauge "membership_total" MembershipTotal,
        Counter "retry_or_shadow_abandoned" RetryOrShadowAbandoned,
        Gauge "version" Version,
        Gauge "warming_state" WarmingState,
        Gauge "max_host_weight" MaxHostWeight,
        Counter "lb_healthy_panic" LbHealthyPanic,
        Counter "lb_zone_routing_all_directly" LbZoneDirect,
        Counter "lb_zone_routing_sampled" LbZoneSampled,
        Counter "lb_zone_routing_cross_zone" LbZoneCross,
        Counter "lb_local_cluster_not_ok" LbLocalNotOk,
        Counter "lb_zone_cluster_too_small" LbZoneTooSmall,
        Counter "lb_zone_number_differs" LbZoneNumberDiffers,
        Counter "lb_zone_no_capacity_left" LbZoneNoCapacity,
        Counter "lb_recalculate_zone_structures" LbRecalculate,
        Counter "lb_subsets_created" LbSubsetsCreated,
        Counter "lb_subsets_fallback" LbSubsetsFallback,
        Counter "lb_subsets_fallback_panic" LbSubsetsFallbackPanic,
        Counter "lb_subsets_removed" LbSubsetsRemoved,
        Counter "lb_subsets_selected" LbSubsetsSelected,
        Gauge "lb_subsets_active" LbSubsetsActive,
    }

    /// `cluster.NAME.outlier_detection.`
    Outlier {
        Gauge "ejections_active" Active,
        Counter "ejections_overflow" Overflow,
        Counter "ejections_enforced_total" EnforcedTotal,
        Counter "ejections_total" Total,
        Counter "ejections_consecutive_5xx" Consecutive5xx,
        Counter "ejections_detected_consecutive_5xx" DetectedConsecutive5xx,
        Counter "ejections_enforced_consecutive_5xx" EnforcedConsecutive5xx,
        Counter "ejections_success_rate" SuccessRate,
        Counter "ejections_detected_success_rate" DetectedSuccessRate,
        Counter "ejections_enforced_success_rate" EnforcedSuccessRate,
        Counter "ejections_detected_consecutive_gateway_failure" DetectedGatewayFailure,
        Counter "ejections_enforced_consecutive_gateway_failure" EnforcedGatewayFailure,
        Counter "ejections_detected_consecutive_local_origin_failure" DetectedLocalOrigin,
        Counter "ejections_enforced_consecutive_local_origin_failure" EnforcedLocalOrigin,
        Counter "ejections_detected_local_origin_success_rate" DetectedLocalRate,
        Counter "ejections_enforced_local_origin_success_rate" EnforcedLocalRate,
        Counter "ejections_detected_failure_percentage" DetectedFailurePercentage,
        Counter "ejections_enforced_failure_percentage" EnforcedFailurePercentage,
    }

    /// `cluster.NAME.health_check.`
    HealthCheck {
        Counter "attempt" Attempt,
        Counter "success" Success,
        Counter "failure" Failure,
        Counter "passive_failure" PassiveFailure,
        Counter "network_failure" NetworkFailure,
        Counter "verify_cluster" VerifyCluster,
        Gauge "healthy" Healthy,
        Gauge "degraded" Degraded,
    }

    /// `cluster.NAME.circuit_breakers.default.` and `….high.`
    CircuitBreaker {
        Gauge "cx_open" CxOpen,
        Gauge "cx_pool_open" CxPoolOpen,
        Gauge "rq_pending_open" RqPendingOpen,
        Gauge "rq_open" RqOpen,
        Gauge "rq_retry_open" RqRetryOpen,
        Gauge "remaining_cx" RemainingCx,
        Gauge "remaining_cx_pools" RemainingCxPools,
        Gauge "remaining_pending" RemainingPending,
        Gauge "remaining_retries" RemainingRetries,
        Gauge "remaining_rq" RemainingRq,
    }

    /// `cluster.NAME.ssl.`
    UpstreamSsl {
        Counter "connection_error" ConnectionError,
        Counter "handshake" Handshake,
        Counter "session_reused" SessionReused,
        Counter "no_certificate" NoCertificate,
        Counter "fail_verify_no_cert" FailVerifyNoCert,
        Counter "fail_verify_error" FailVerifyError,
        Counter "fail_verify_san" FailVerifySan,
        Counter "fail_verify_cert_hash" FailVerifyCertHash,
    }

    /// `server.`
    Server {
        Gauge "concurrency" Concurrency,
        Gauge "days_until_first_cert_expiring" DaysUntilCertExpires,
        Counter "debug_assertion_failures" DebugAssertions,
        Counter "dropped_stat_flushes" DroppedFlushes,
        Counter "dynamic_unknown_fields" DynamicUnknownFields,
        Counter "envoy_bug_failures" BugFailures,
        Gauge "hot_restart_epoch" HotRestartEpoch,
        Histogram "initialization_time_ms" InitializationTime,
        Gauge "live" Live,
        Gauge "memory_allocated" MemoryAllocated,
        Gauge "memory_heap_size" MemoryHeapSize,
        Gauge "memory_physical_size" MemoryPhysicalSize,
        Gauge "parent_connections" ParentConnections,
        Gauge "seconds_until_first_ocsp_response_expiring" OcspExpires,
        Gauge "state" State,
        Counter "static_unknown_fields" StaticUnknownFields,
        Gauge "stats_recent_lookups" RecentLookups,
        Gauge "total_connections" TotalConnections,
        Gauge "uptime" Uptime,
        Gauge "version" Version,
        Counter "wip_protos" WipProtos,
    }

    /// `cluster_manager.`
    ClusterSet {
        Gauge "active_clusters" ActiveClusters,
        Counter "cluster_added" ClusterAdded,
        Counter "cluster_modified" ClusterModified,
        Counter "cluster_removed" ClusterRemoved,
        Counter "cluster_updated" ClusterUpdated,
        Counter "cluster_updated_via_merge" ClusterUpdatedViaMerge,
        Counter "update_merge_cancelled" UpdateMergeCancelled,
        Counter "update_out_of_merge_window" UpdateOutOfMergeWindow,
        Gauge "warming_clusters" WarmingClusters,
    }

    /// `listener_manager.`
    ListenerSet {
        Counter "listener_added" ListenerAdded,
        Counter "listener_create_failure" ListenerCreateFailure,
        Counter "listener_create_success" ListenerCreateSuccess,
        Counter "listener_in_place_updated" ListenerInPlaceUpdated,
        Counter "listener_modified" ListenerModified,
        Counter "listener_removed" ListenerRemoved,
        Counter "listener_stopped" ListenerStopped,
        Gauge "total_filter_chains_draining" FilterChainsDraining,
        Gauge "total_listeners_active" ListenersActive,
        Gauge "total_listeners_draining" ListenersDraining,
        Gauge "total_listeners_warming" ListenersWarming,
        Gauge "workers_started" WorkersStarted,
    }

    /// `vhost.NAME.vcluster.other.` and `vhost.NAME.route.NAME.`
    VirtualHostRequests {
        Counter "upstream_rq_total" RqTotal,
        Counter "upstream_rq_retry" RqRetry,
        Counter "upstream_rq_retry_limit_exceeded" RqRetryLimit,
        Counter "upstream_rq_retry_overflow" RqRetryOverflow,
        Counter "upstream_rq_retry_success" RqRetrySuccess,
        Counter "upstream_rq_timeout" RqTimeout,
        Counter "upstream_rq_1xx" Rq1xx,
        Counter "upstream_rq_2xx" Rq2xx,
        Counter "upstream_rq_3xx" Rq3xx,
        Counter "upstream_rq_4xx" Rq4xx,
        Counter "upstream_rq_5xx" Rq5xx,
    }

    /// `control_plane.`
    ControlPlane {
        Gauge "connected_state" ConnectedState,
        Gauge "pending_requests" PendingRequests,
        Counter "rate_limit_enforced" RateLimitEnforced,
    }

    /// `http.PREFIX.fault.`
    Fault {
        Counter "aborts_injected" AbortsInjected,
        Counter "delays_injected" DelaysInjected,
        Counter "faults_overflow" FaultsOverflow,
        Counter "response_rl_injected" ResponseRlInjected,
        Gauge "active_faults" ActiveFaults,
    }

    /// `http.PREFIX.cors.`
    Cors {
        Counter "origin_invalid" OriginInvalid,
        Counter "origin_valid" OriginValid,
    }
}
