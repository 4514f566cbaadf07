# The Consul ACL policy of svcagent on one host: what it needs and nothing more (Consul 1.4 and later).
#
# Three names are placeholders. Write in their place
#   NODE     this host's node name in Consul (consul members shows it),
#   SERVICE  a service that services.d defines: its name, not its id. Repeat both rules for each,
#   LOCK     the reload.lock of a definition that sets one. Repeat the rule for each, or leave it out,
# and make a token of it, with a token that may write ACLs:
#
#   sed 's/NODE/host-1/; s/SERVICE/keyword-suggest/; s/LOCK/keyword_suggest_reload/' policy.hcl |
#     consul acl policy create -name svcagent-host-1 -rules -
#   consul acl token create -description 'svcagent on host-1' -policy-name svcagent-host-1
#
# svcagent doctor then reports the rules that the token lacks.
#
# One policy for all hosts alike is possible: agent_prefix "" and session_prefix "" in the place of agent and session.
#
# Keep the token valid for as long as its services are registered: Consul's agent goes on using it to tell its servers
# of their state. Once it is deleted, what the catalog says of them no longer changes.

# Who the local agent is: its node name and datacenter. Every verb but status asks it first.
agent "NODE" { policy = "read" }

# Whether enough other instances pass before one is drained, and whether maintenance has reached the catalog. The
# others are on other nodes. Without this rule Consul's answers are empty, and svcagent says so instead of believing it.
node_prefix "" { policy = "read" }

# Registering the service and its checks, its maintenance, and reading them back (write includes read).
service "SERVICE" { policy = "write" }

# The session under which the reload lock is held and waited for.
session "NODE" { policy = "write" }

# Whether the reload of another host still runs, for a service that this host does not define. Consul hides sessions
# that the token may not read, and a hidden one looks like a reload that disappeared.
session_prefix "" { policy = "read" }

# The lock svcagent/<service>/lock, the queue for every lock of the service, and the documents that hosts share: the
# wanted version, quarantine, pause, states, history and sent notifications. Write access is the right to deploy the
# service. Keys are in lower case: write the service's name in lower case here.
key_prefix "svcagent/SERVICE/" { policy = "write" }

# A lock by another name, such as one shared with consul lock.
key_prefix "LOCK/" { policy = "write" }

# For svcagent maint enable --node and disable --node alone; leave it out if only others do that.
node "NODE" { policy = "write" }
